"""Compare a registered model with the champion on held-out patients; promote it if the rules say so.

python jobs/promote.py --model models:/medgan-pet2ct@challenger --data FOLDER
ray job submit -- python jobs/promote.py --model models:/medgan-pet2ct@challenger --data FOLDER --rules rules.yaml
"""

from medgan.cli.main import run_promote

if __name__ == "__main__":
    run_promote()
