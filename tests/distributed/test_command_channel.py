"""The command channel without Ray: orders, answers, and every way in which a group is lost."""

import asyncio

import pytest

from medgan.distributed.command_channel import STOP, CommandChannel, Failure

pytestmark = pytest.mark.unit


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 20))


async def obey(channel, generation, rank, answers):
    """Acts as a rank that answers each order with the next of `answers`; at None it stops answering."""
    number = await channel.join(generation, rank)
    for answer in answers:
        number, order = await channel.next_order(generation, number)
        if order == STOP or answer is None:
            return order
        await channel.answer(generation, number, rank, answer)
    return None


def ask(channel, generation="g", limit_s=5.0, grace_s=0.05):
    return channel.ask(generation, "order", limit_s=limit_s, grace_s=grace_s)


def test_command_channel_returns_answers_in_rank_order():
    async def scenario():
        channel = CommandChannel(2)
        ranks = [asyncio.create_task(obey(channel, "g", rank, [f"answer {rank}"])) for rank in (1, 0)]
        assert await channel.complete(5.0)
        replies = await ask(channel)
        await asyncio.gather(*ranks)
        assert replies.answers == ("answer 0", "answer 1")

    run(scenario())


def test_command_channel_is_complete_with_all_ranks_of_one_generation():
    async def scenario():
        channel = CommandChannel(2)
        await channel.join("old", 0)
        await channel.join("new", 1)
        assert not await channel.complete(0.05)
        await channel.join("new", 0)
        assert await channel.complete(0.05)

    run(scenario())


def test_command_channel_loses_order_when_new_generation_joins():
    async def scenario():
        channel = CommandChannel(1)
        asyncio.create_task(obey(channel, "old", 0, [None]))
        await channel.complete(5.0)
        asked = asyncio.create_task(ask(channel, "old"))
        await asyncio.sleep(0.05)
        await channel.join("new", 0)
        assert (await asked).lost == "a worker died"

    run(scenario())


def test_command_channel_drops_order_for_old_generation():
    async def scenario():
        channel = CommandChannel(1)
        await channel.join("old", 0)
        number = await channel.join("new", 0)
        assert (await ask(channel, "old")).lost == "a worker died"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.next_order("new", number), 0.05)

    run(scenario())


def test_command_channel_drops_answers_of_old_generation():
    async def scenario():
        channel = CommandChannel(1)
        await channel.join("old", 0)
        await channel.join("new", 0)
        asked = asyncio.create_task(ask(channel, "new", limit_s=0.1))
        await asyncio.sleep(0.02)
        await channel.answer("old", 1, 0, "a late answer")
        assert (await asked).lost

    run(scenario())


def test_command_channel_dismisses_group_after_failure_of_one_rank():
    async def scenario():
        channel = CommandChannel(2)
        asyncio.create_task(obey(channel, "g", 0, [Failure("error", "alone")]))
        asyncio.create_task(obey(channel, "g", 1, [None]))
        await channel.complete(5.0)
        replies = await ask(channel)
        assert replies.lost == "no answer from rank 1; alone"
        await asyncio.wait_for(channel.until_over("g"), 1)

    run(scenario())


def test_command_channel_dismisses_group_that_does_not_answer_in_time():
    async def scenario():
        channel = CommandChannel(1)
        await channel.join("g", 0)
        assert (await ask(channel, limit_s=0.05)).lost == "no answer from rank 0"
        assert await channel.next_order("g", 0) == (0, STOP)

    run(scenario())


def test_command_channel_hides_earlier_orders_from_new_rank():
    async def scenario():
        channel = CommandChannel(1)
        await channel.join("old", 0)
        await ask(channel, "old", limit_s=0.05)
        number = await channel.join("new", 0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(channel.next_order("new", number), 0.05)

    run(scenario())


def test_command_channel_ends_order_with_cause_of_death():
    async def scenario():
        channel = CommandChannel(2)
        for rank in (0, 1):
            await channel.join("g", rank)
        asked = asyncio.create_task(ask(channel))
        await asyncio.sleep(0.02)
        death = Failure("out_of_memory", "rank 1 had no memory left")
        await channel.mourn(death)
        await channel.mourn(Failure("error", "rank 0 left"))
        replies = await asked
        assert (replies.lost, replies.failures) == ("rank 1 had no memory left", (death,))

    run(scenario())


def test_command_channel_reports_death_between_orders_at_next_order():
    async def scenario():
        channel = CommandChannel(1)
        await channel.join("old", 0)
        await channel.mourn(Failure("error", "rank 0 died"))
        await channel.join("new", 0)
        assert (await ask(channel, "old")).lost == "rank 0 died"
        assert await channel.complete(0.05) == "new"

    run(scenario())


def test_command_channel_returns_failure_of_one_rank():
    async def scenario():
        channel = CommandChannel(2)
        alone = Failure("out_of_memory", "no memory left")
        asyncio.create_task(obey(channel, "g", 0, [alone]))
        asyncio.create_task(obey(channel, "g", 1, [None]))
        await channel.complete(5.0)
        assert (await ask(channel)).failures == (alone,)

    run(scenario())
