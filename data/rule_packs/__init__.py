"""Rule packs: words that are to be equally probable, one YAML file a language and axis; see `evenhand.rules.packs`."""
