"""jt_nanodet.data.sampler: seeds, order and shares are functions of (run, epoch, index)."""

import hashlib

import pytest

from jt_nanodet.data.sampler import epoch_order, replacement_index, sample_seed, shard_batches


def test_seed_is_the_documented_hash():
    expected = int.from_bytes(hashlib.blake2b(b"nanodet-sample:7:3:41:0", digest_size=8).digest(), "big")
    assert sample_seed(7, 3, 41) == expected
    assert (
        len({sample_seed(r, e, i, a) for r in range(3) for e in range(3) for i in range(20) for a in range(2)}) == 360
    )


def test_order_is_a_permutation_of_its_own_for_every_epoch():
    orders = [epoch_order(1, e, 50) for e in range(3)] + [epoch_order(2, 0, 50)]
    assert all(sorted(o) == list(range(50)) for o in orders) and len(set(map(tuple, orders))) == 4
    assert epoch_order(1, 0, 50) == orders[0] and epoch_order(1, 0, 5, shuffle=False) == [0, 1, 2, 3, 4]
    # recorded once: a change here changes every training run
    assert epoch_order(0, 0, 10) == [2, 1, 0, 3, 7, 6, 5, 8, 9, 4]


@pytest.mark.parametrize("count,drop_last", [(48, True), (50, True), (50, False), (13, False)])
def test_two_processes_see_what_one_sees_with_the_double_batch(count, drop_last):
    order = epoch_order(0, 0, count)
    one = shard_batches(order, 12, drop_last=drop_last)
    two = [shard_batches(order, 6, rank, 2, drop_last) for rank in range(2)]
    assert [a + b for a, b in zip(*two)] == one
    assert len(two[0]) == len(two[1]) == len(one)
    assert sum(map(len, one)) == (count // 12 * 12 if drop_last else count)


def test_replacements_are_spread():
    places = [replacement_index(0, 0, i, 1, 1000) for i in range(200)]
    assert all(0 <= p < 1000 for p in places) and len(set(places)) > 150
