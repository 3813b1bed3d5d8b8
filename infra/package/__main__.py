"""`python -m image_finder`: the command line."""

from image_finder.components.app.cli import main

if __name__ == "__main__":
    main(prog_name="image-finder")
