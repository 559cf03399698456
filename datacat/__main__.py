"""python -m datacat is the command datacat."""

from datacat.cli.main import main

if __name__ == "__main__":
    main()
