"""Search MedGAN's hyper-parameters for PET denoising: prepare, plan, search, test, register.

python jobs/tune_pet_denoise.py                                     phantoms, minutes
python jobs/tune_pet_denoise.py --data FOLDER --space quick_same    your patients, small
ray job submit -- python jobs/tune_pet_denoise.py --data FOLDER     on a cluster
"""

from medgan.cli.main import run_job

if __name__ == "__main__":
    run_job("pet_denoise")
