"""The mailbox without Ray: orders, answers, and every way a group is lost."""

import asyncio

import pytest

from medgan.distributed.command_channel import STOP, Failure, Mailbox


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 20))


async def obey(mailbox, generation, rank, answers):
    """A rank that answers each order with the next of `answers`; None is silence."""
    number = await mailbox.join(generation, rank)
    for answer in answers:
        number, order = await mailbox.next_order(generation, number)
        if order == STOP or answer is None:
            return order
        await mailbox.answer(generation, number, rank, answer)
    return None


def ask(mailbox, generation="g", limit_s=5.0, grace_s=0.05):
    return mailbox.ask(generation, "order", limit_s=limit_s, grace_s=grace_s)


def test_every_rank_gets_the_order_and_every_answer_comes_back_in_rank_order():
    async def scenario():
        mailbox = Mailbox(2)
        ranks = [asyncio.create_task(obey(mailbox, "g", rank, [f"answer {rank}"])) for rank in (1, 0)]
        assert await mailbox.complete(5.0)
        replies = await ask(mailbox)
        await asyncio.gather(*ranks)
        assert replies.answers == ("answer 0", "answer 1")

    run(scenario())


def test_a_group_is_complete_only_when_every_rank_of_one_generation_is_there():
    async def scenario():
        mailbox = Mailbox(2)
        await mailbox.join("old", 0)
        await mailbox.join("new", 1)
        assert not await mailbox.complete(0.05)
        await mailbox.join("new", 0)
        assert await mailbox.complete(0.05)

    run(scenario())


def test_a_new_generation_loses_the_order_under_way():
    async def scenario():
        mailbox = Mailbox(1)
        asyncio.create_task(obey(mailbox, "old", 0, [None]))
        await mailbox.complete(5.0)
        asked = asyncio.create_task(ask(mailbox, "old"))
        await asyncio.sleep(0.05)
        await mailbox.join("new", 0)
        assert (await asked).lost == "a worker died"

    run(scenario())


def test_an_order_meant_for_a_group_that_restarted_reaches_nobody():
    async def scenario():
        mailbox = Mailbox(1)
        await mailbox.join("old", 0)
        number = await mailbox.join("new", 0)
        assert (await ask(mailbox, "old")).lost == "a worker died"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(mailbox.next_order("new", number), 0.05)

    run(scenario())


def test_echoes_of_an_earlier_generation_are_dropped():
    async def scenario():
        mailbox = Mailbox(1)
        await mailbox.join("old", 0)
        await mailbox.join("new", 0)
        asked = asyncio.create_task(ask(mailbox, "new", limit_s=0.1))
        await asyncio.sleep(0.02)
        await mailbox.answer("old", 1, 0, "an echo")
        assert (await asked).lost

    run(scenario())


def test_a_rank_that_fails_alone_while_another_hangs_dismisses_the_group_after_the_grace():
    async def scenario():
        mailbox = Mailbox(2)
        asyncio.create_task(obey(mailbox, "g", 0, [Failure("error", "alone")]))
        asyncio.create_task(obey(mailbox, "g", 1, [None]))
        await mailbox.complete(5.0)
        replies = await ask(mailbox)
        assert replies.lost == "no answer from rank 1; alone"
        await asyncio.wait_for(mailbox.until_over("g"), 1)

    run(scenario())


def test_a_group_that_does_not_answer_in_time_is_dismissed():
    async def scenario():
        mailbox = Mailbox(1)
        await mailbox.join("g", 0)
        assert (await ask(mailbox, limit_s=0.05)).lost == "no answer from rank 0"
        assert await mailbox.next_order("g", 0) == (0, STOP)

    run(scenario())


def test_a_rank_never_sees_an_order_given_before_it_joined():
    async def scenario():
        mailbox = Mailbox(1)
        await mailbox.join("old", 0)
        await ask(mailbox, "old", limit_s=0.05)
        number = await mailbox.join("new", 0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(mailbox.next_order("new", number), 0.05)

    run(scenario())


def test_an_order_under_way_ends_with_the_word_on_why_a_process_died():
    async def scenario():
        mailbox = Mailbox(2)
        for rank in (0, 1):
            await mailbox.join("g", rank)
        asked = asyncio.create_task(ask(mailbox))
        await asyncio.sleep(0.02)
        death = Failure("out_of_memory", "rank 1 had no memory left")
        await mailbox.mourn(death)
        await mailbox.mourn(Failure("error", "rank 0 left"))
        replies = await asked
        assert (replies.lost, replies.failures) == ("rank 1 had no memory left", (death,))

    run(scenario())


def test_the_word_on_a_death_between_orders_is_told_at_the_next_one_even_when_a_new_group_is_there():
    async def scenario():
        mailbox = Mailbox(1)
        await mailbox.join("old", 0)
        await mailbox.mourn(Failure("error", "rank 0 died"))
        await mailbox.join("new", 0)
        assert (await ask(mailbox, "old")).lost == "rank 0 died"
        assert await mailbox.complete(0.05) == "new"

    run(scenario())


def test_what_a_rank_failed_with_alone_is_handed_on():
    async def scenario():
        mailbox = Mailbox(2)
        alone = Failure("out_of_memory", "no memory left")
        asyncio.create_task(obey(mailbox, "g", 0, [alone]))
        asyncio.create_task(obey(mailbox, "g", 1, [None]))
        await mailbox.complete(5.0)
        assert (await ask(mailbox)).failures == (alone,)

    run(scenario())
