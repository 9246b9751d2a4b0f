#!/usr/bin/env bash
# Makes d5bb1c7.tar.xz, for tests/cluster/test_made_before.py: run it in a checkout of commit d5bb1c7 that is installed.
set -eu
folder=/tmp/medgan-d5bb1c7
export MEDGAN_HOME=$folder/home
rm -rf "$folder" && mkdir -p "$folder"
medgan phantoms "$folder/patients" --patients 6 --slices 6 --matrix 32
find "$folder/patients" -exec touch -d "2026-11-01 00:00:00 UTC" {} +  # a data set knows its files by their times
python jobs/tune_pet2ct.py --data "$folder/patients" --space quick --trials 2 --study old --workers 1 \
    --set train.epochs=2 --set train.batch_size=2 --set generator.base_channels=2 --set discriminator.base_channels=2
medgan translate --model models:/medgan-pet2ct-phantom@challenger "$folder/patients/PHANTOM-0001/PT" "$folder/translated"
tar -C /tmp --exclude='*/reports' --exclude='*/logs' --exclude='*/ray' --exclude='*/artifacts/report' \
    --exclude='*/artifacts/pictures' -cJf d5bb1c7.tar.xz medgan-d5bb1c7
