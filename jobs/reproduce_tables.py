"""Compare the methods of the paper's tables I and II on the same patients (see medgan/workflows/compare_methods.py).

python jobs/reproduce_tables.py --quick                        phantoms, a look
python jobs/reproduce_tables.py --data FOLDER                  your patients, small networks, 3 minutes a training
python jobs/reproduce_tables.py --data FOLDER --epochs 40      the same epochs for each instead of the same minutes
python jobs/reproduce_tables.py --data FOLDER --paper          as published: 256 px, 200 epochs, GPUs
"""

from medgan.cli.main import run_tables

if __name__ == "__main__":
    run_tables()
