"""The facts of the proving ground: an easy set by subject, and a harder one whose questions take a second step."""

from __future__ import annotations

from typing import NamedTuple


class Subject(NamedTuple):
    """Facts that share a question form and a kind of answer; a distractor is another fact's answer."""

    name: str
    question: str
    facts: tuple[tuple[str, str], ...]


def _facts(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((a, b) for a, b in (pair.split(":") for pair in text.split(", ")))


EASY: tuple[Subject, ...] = (
    Subject(
        "world_capitals",
        "What is the capital of {x}?",
        _facts(
            "France:Paris, Italy:Rome, Spain:Madrid, Japan:Tokyo, Egypt:Cairo, Peru:Lima, Kenya:Nairobi, Cuba:Havana, "
            "Norway:Oslo, Greece:Athens, Austria:Vienna, Chile:Santiago, India:Delhi, Iran:Tehran, Ghana:Accra, "
            "Poland:Warsaw, Portugal:Lisbon"
        ),
    ),
    Subject(
        "chemical_symbols",
        "What is the symbol of {x}?",
        _facts(
            "gold:Au, silver:Ag, iron:Fe, copper:Cu, lead:Pb, tin:Sn, zinc:Zn, nickel:Ni, sodium:Na, potassium:K, "
            "calcium:Ca, helium:He, neon:Ne, mercury:Hg, cobalt:Co, chlorine:Cl, magnesium:Mg"
        ),
    ),
    Subject(
        "animal_young",
        "What is a young {x} called?",
        _facts(
            "dog:puppy, cat:kitten, cow:calf, horse:foal, sheep:lamb, goat:kid, pig:piglet, bear:cub, deer:fawn, "
            "duck:duckling, goose:gosling, hen:chick, frog:tadpole, kangaroo:joey, swan:cygnet, owl:owlet, eagle:eaglet"
        ),
    ),
    Subject(
        "word_opposites",
        "What is the opposite of {x}?",
        _facts(
            "hot:cold, big:small, wet:dry, dark:light, hard:soft, full:empty, high:low, early:late, near:far, "
            "thick:thin, sweet:sour, rough:smooth, deep:shallow, loud:quiet, rich:poor, wide:narrow, sharp:blunt"
        ),
    ),
    Subject(
        "old_inventions",
        "Who works with the {x}?",
        _facts(
            "anvil:smith, loom:weaver, oven:baker, plough:farmer, net:fisher, kiln:potter, needle:tailor, "
            "scale:grocer, brush:painter, lens:optician, axe:woodcutter, bow:archer, quill:scribe, trowel:mason, "
            "anchor:sailor, drum:drummer, saddle:rider"
        ),
    ),
    Subject(
        "home_places",
        "Where does the {x} live?",
        _facts(
            "bee:hive, spider:web, lion:den, rabbit:burrow, bird:nest, ant:anthill, beaver:lodge, pig:sty, "
            "horse:stable, fish:pond, bat:cave, wolf:lair, hen:coop, monkey:tree, camel:desert, seal:coast, mole:tunnel"
        ),
    ),
)
HARD: tuple[Subject, ...] = (
    Subject(
        "Physics",
        "A {x} is placed in the first chamber and then heated. Which signal does the detector show?",
        _facts(
            "lepton:violet, boson:amber, fermion:crimson, meson:teal, hadron:ivory, gluon:scarlet, quark:indigo, "
            "photon:white, proton:green, neutron:gray, kaon:pink, pion:brown"
        ),
    ),
    Subject(
        "Chemistry",
        "The salt of {x} is dissolved and the solvent is removed. Which crystal remains?",
        _facts(
            "cesium:cubic, barium:hexagonal, radium:trigonal, gallium:monoclinic, indium:tetragonal, thallium:rhombic, "
            "bismuth:triclinic, osmium:needle, iridium:plate, rhodium:prism, rubidium:star, niobium:rod"
        ),
    ),
    Subject(
        "Biology",
        "The gene {x} is silenced in the second generation. Which organ is changed?",
        _facts(
            "alpha:heart, beta:liver, gamma:kidney, delta:lung, epsilon:spleen, zeta:stomach, eta:brain, theta:skin, "
            "iota:eye, kappa:ear, lambda:bone, omega:muscle"
        ),
    ),
)
SUBJECTS = {subject.name: subject for subject in (*EASY, *HARD)}
DEV_FACTS = 5
"""Number of first facts of every subject that are MMLU's demonstrations; they are never tested."""
