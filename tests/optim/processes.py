"""Two processes that talk by gloo, for the tests of sharded and replicated training."""

import socket


def in_two_processes(work):
    """Return by rank what ``work(rank)`` returns in two processes; it must be importable (a function of a module)."""
    import torch.multiprocessing as mp

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    queue = mp.get_context("spawn").Queue()
    context = mp.spawn(_one_of_two, args=(work, port, queue), nprocs=2, join=False)
    found = dict(queue.get(timeout=240) for _ in range(2))
    while not context.join(timeout=60):
        pass
    return found


def _one_of_two(rank, work, port, results):
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    try:
        results.put((rank, work(rank)))
    finally:
        dist.destroy_process_group()
