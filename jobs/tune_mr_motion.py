"""Search MedGAN's hyper-parameters for MR motion correction: prepare, plan, search, test, register.

python jobs/tune_mr_motion.py                                     phantoms, minutes
python jobs/tune_mr_motion.py --data FOLDER --space quick_same    your patients, small
ray job submit -- python jobs/tune_mr_motion.py --data FOLDER     on a cluster
"""

from medgan.cli.main import run_job

if __name__ == "__main__":
    run_job("mr_motion")
