from snaplib.cli import main

raise SystemExit(main())
