"""`popek check`: published claims, or claims of the user."""

from __future__ import annotations

from typing import Any

from .certifying import Certify, certified
from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import AsJson, Jobs, Timeout
from .output import console, print_json, progress, working


def check(
    *claims: str, timeout: Timeout = 0.0, jobs: Jobs = 0, certify: Certify = None, json: AsJson = False
) -> int:
    """Check published claims, or those of a file of your own, against the semantics.

    Args:
        claims: ids of claims, those about devices and published lists of what is rewritten (`rewriting.…`) among
            them, or TOML files; by default all that come with popek about processors (`popek devices check` checks all
            about devices).
    """
    from popek.report import claims as report
    from popek.report import devices as device_report
    from popek.report import rewriting as rewriting_report
    from popek_proofs.claim_checks import evaluate
    from popek_proofs.claims import ClaimError, select
    from popek_proofs.devices import check_device_claim, device_claims
    from popek_proofs.rewriting import check_list, published_lists

    known = {claim.id: claim for claim in device_claims()}
    of_devices = [known[name] for name in claims if name in known]
    by_id = {one.id: one for one in published_lists()}
    lists = [by_id[name] for name in claims if name in by_id]
    others = [name for name in claims if name not in known and name not in by_id]
    try:
        chosen = select(others) if others or not (of_devices or lists) else []
        with certified(certify), progress("checking") as show:
            found = evaluate(chosen, timeout=timeout, jobs=jobs, certify=certify, progress=show)
    except ClaimError as error:
        raise UserError(str(error)) from None
    with working("asking of devices"):
        beside = [check_device_claim(claim) for claim in of_devices]
    judged, least = [], dict[Any, Any]()
    for published in lists:
        with progress(f"asking what {published.id} lacks") as show:
            judged.append(check_list(published, known=least, timeout=timeout, jobs=jobs, progress=show))
    if json:
        document: dict[str, object] = {
            "schema": "popek/claims/1",
            "claims": [claim.to_json() for claim in found],
        }
        document |= {"of_devices": [one.to_json() for one in beside]} if beside else {}
        print_json(document | ({"of_rewriting": [one.to_json() for one in judged]} if judged else {}))
    else:
        if found:
            console().print(report.claims(found))
        if beside:
            console().print(device_report.claims(beside))
        for what in judged:
            console().print(rewriting_report.published(what))
    odd = [one.unexpected for one in found] + [one.unexpected for one in beside]
    if any(odd) or any(one.unexpected for one in judged):
        return UNEXPECTED
    return UNKNOWN if any(one.unknown for one in found) or any(one.unknown for one in judged) else 0
