from snaplib.cli import program

program()
