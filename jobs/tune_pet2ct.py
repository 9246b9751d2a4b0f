"""Search MedGAN's hyper-parameters for PET -> CT: prepare, plan, search, test, register (see medgan/workflows/tune.py).

python jobs/tune_pet2ct.py                                     phantoms, minutes
python jobs/tune_pet2ct.py --data FOLDER --space quick         your patients, small
ray job submit -- python jobs/tune_pet2ct.py --data FOLDER     on a cluster
"""

from medgan.cli.main import run_job

if __name__ == "__main__":
    run_job("pet2ct")
