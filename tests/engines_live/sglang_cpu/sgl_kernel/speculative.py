"""What SGLang 0.5.23 calls for n-gram speculation on a CPU, in plain torch: slow and simple.

Arguments are as SGLang passes them; those marked "written" are its output. A draft is a tree of
``n`` tokens for each request, node 0 the last token that is certain. The tests draft chains only.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


def reconstruct_indices_from_tree_mask(
    tree_mask: Tensor,
    verified: Tensor,
    positions: Tensor,  # written
    index: Tensor,  # written
    next_token: Tensor,  # written
    next_sibling: Tensor,  # written
    batch: int,
    n: int,
) -> None:
    """From "j is an ancestor of i" to positions in the text and links between the nodes."""
    mask = tree_mask.view(-1)[: batch * n * n].view(batch, n, n).bool().tolist()
    where = positions.view(batch, n)
    for b in range(batch):
        above = [[j for j in range(i) if mask[b][i][j]] for i in range(n)]
        parents = [ancestors[-1] if ancestors else None for ancestors in above]
        for i in range(n):
            where[b, i] = int(verified[b]) + len(above[i])
            index[b, i] = b * n + i
            children = [k for k in range(i + 1, n) if parents[k] == i]
            siblings = [
                k for k in range(i + 1, n) if parents[k] is not None and parents[k] == parents[i]
            ]
            next_token[b, i] = children[0] if children else -1
            next_sibling[b, i] = siblings[0] if siblings else -1


def verify_tree_greedy_cpu(
    predicts: Tensor,  # written
    accept_index: Tensor,  # written
    accept_token_num: Tensor,  # written
    candidates: Tensor,
    retrive_index: Tensor,
    retrive_next_token: Tensor,
    retrive_next_sibling: Tensor,
    target_predict: Tensor,
) -> None:
    """Walk down each request's tree for as long as a child is what the model itself would say."""
    target = target_predict.view(-1)
    for b in range(candidates.shape[0]):
        node, accepted = 0, 0
        flat = int(retrive_index[b, 0])
        accept_index[b, 0] = flat
        while accepted + 1 < accept_index.shape[1]:
            wanted = int(target[flat])
            child = int(retrive_next_token[b, node])
            while child != -1 and int(candidates[b, child]) != wanted:
                child = int(retrive_next_sibling[b, child])
            if child == -1:
                break
            predicts[flat] = wanted
            node, flat, accepted = child, int(retrive_index[b, child]), accepted + 1
            accept_index[b, accepted] = flat
        accept_token_num[b] = accepted
        predicts[flat] = target[flat]


def assign_req_to_token_pool_cpu(
    rows: Tensor,
    table: Tensor,  # written
    start: Tensor,
    end: Tensor,
    locations: Tensor,
    _width: int,
) -> None:
    """Write each request's new cache locations into its row of the table."""
    taken = 0
    for row, first, last in zip(rows.tolist(), start.tolist(), end.tolist(), strict=True):
        table[row, first:last] = locations[taken : taken + last - first].to(table.dtype)
        taken += last - first


def assign_extend_cache_locs_cpu(
    rows: Tensor,
    table: Tensor,
    start: Tensor,
    end: Tensor,
    locations: Tensor,  # written
    _width: int,
) -> None:
    """Read them back: the other direction of ``assign_req_to_token_pool_cpu``."""
    taken = 0
    for row, first, last in zip(rows.tolist(), start.tolist(), end.tolist(), strict=True):
        locations[taken : taken + last - first] = table[row, first:last].to(locations.dtype)
        taken += last - first


def fill_accept_out_cache_loc_cpu(
    accept_index: Tensor,
    locations: Tensor,
    kept: Tensor,  # written
) -> None:
    """The cache locations of accepted tokens, packed to the front."""
    accepted = accept_index.view(-1)
    accepted = accepted[accepted >= 0].long()
    kept[: accepted.numel()] = locations[accepted]


def fill_bonus_tokens_cpu(
    accept_tokens: Tensor,
    accept_lens: Tensor,
    bonus: Tensor,  # written
    stride: int,
) -> None:
    """The last accepted token of each request: where the next draft begins."""
    tokens = accept_tokens.view(-1)
    for b, length in enumerate(accept_lens.tolist()):
        bonus[b] = tokens[b * stride + int(length) - 1]


def copy_all_layer_kv_cache_cpu(*_: Any) -> None:
    """Nothing: accepted tokens of a chain already lie where they belong."""
