"""Refuses to test a model on patients that it was trained or chosen on."""

from medgan.data.dataset import PreparedDataset
from medgan.errors import InputError
from medgan.inference.saved_model import ModelManifest


def refuse_seen(manifest: ModelManifest, dataset: PreparedDataset) -> None:
    """Refuses to test a model on a patient it was trained or chosen on, and where nobody can know.

    Raises:
        InputError: a test patient is one of them, or hashes of two keys would have to be compared.
    """
    named = f"data set {dataset.digest[:12]}"
    if not dataset.manifest.key_id:
        raise InputError("E-EVALUATE-07", named=named)
    refuse_other_key(manifest, dataset.manifest.key_id, f"those of {named}")
    tested = [one for one in dataset.manifest.patients if one.role == "test"]
    known = {*manifest.training_patients, *manifest.validation_patients}
    either = known | {*manifest.patients_without_issuer}  # an ID without an issuer may be that of any issuer
    seen = sorted(one.hash for one in tested if one.hash in either or one.hash_without_issuer in known)
    if seen:
        raise InputError(
            "E-EVALUATE-08",
            manifest_name=manifest.name,
            num_seen=len(seen),
            num_tested=len(tested),
            named=named,
            seen=", ".join(seen),
        )


def refuse_other_key(manifest: ModelManifest, key: str, whose: str) -> None:
    """Refuses hashes of patients that were made with another key than the model's: they cannot be compared."""
    if not manifest.key_id:
        raise InputError("E-EVALUATE-09", manifest_name=manifest.name)
    if manifest.key_id != key:
        raise InputError("E-EVALUATE-10", manifest_name=manifest.name, key_id=manifest.key_id, whose=whose, key=key)
