"""Takes a few steps of a training and measures where their time goes."""

from medgan.benchmark.step_profile import StepProfile, profile_steps
from medgan.benchmark.timing import described
from medgan.distributed.worker import is_out_of_memory, out_of_memory
from medgan.errors import InputError, JobError
from medgan.training.build_training import build_training
from medgan.training.runtime import SingleProcess
from medgan.workflows.events import Announcement, EnginesStart, Notify, ignore
from medgan.workflows.requirements import nothing_left_behind
from medgan.workflows.train import TrainRequest, accepted

TRACE = "profile/trace.json"


def profile(request: TrainRequest, notify: Notify = ignore) -> StepProfile:
    """Takes a few steps of what is asked for, from its checkpoint if it has one; keeps a trace, and no training.

    Raises:
        InputError: as `medgan train`; or several workers.
        JobError: there is no memory for it.
    """
    if request.workers > 1:
        raise InputError("E-PROFILE-01", workers=request.workers)
    with nothing_left_behind(request.place.output):
        config, dataset, name = accepted(request, notify)
    folder, runtime = request.place.checkpoints(name), SingleProcess()
    train, blocks = config.train, config.generator.num_blocks
    facts = {
        "profile": f"{name}: {config.data.size} px, {config.generator.network} of {blocks} blocks, batch "
        f"{train.batch_size} in {train.accumulate} part{'s' * (train.accumulate > 1)}, {train.precision}",
        "device": described(runtime.device),
        "trace": f"{folder / TRACE} (open it in chrome://tracing or ui.perfetto.dev)",
    }
    notify(Announcement(facts))
    notify(EnginesStart(request.place.log_file(name)))
    try:
        return profile_steps(build_training(config, dataset, runtime, folder=folder), folder / TRACE)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise JobError("E-PROFILE-02", out_of_memory=out_of_memory(config, runtime)) from None
