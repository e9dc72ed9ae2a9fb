"""`python -m evenhand`, which launchers such as torchrun start: `torchrun --nproc-per-node 2 -m evenhand compare`."""

from evenhand.cli import main

if __name__ == "__main__":
    main()
