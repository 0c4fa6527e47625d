"""`popek check`: published claims, or claims of the user."""

from __future__ import annotations

from .certifying import Certify, certified
from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import AsJson, Jobs, Timeout
from .output import console, print_json, progress, working


def check(
    *claims: str, timeout: Timeout = 0.0, jobs: Jobs = 0, certify: Certify = None, json: AsJson = False
) -> int:
    """Check published claims, or those of a file of your own, against the semantics.

    Args:
        claims: ids of claims, those about devices among them, or TOML files; by default all that come with popek
            about processors (`popek devices check` checks all about devices).
    """
    from popek.report import claims as report
    from popek.report import devices as device_report
    from popek_proofs.claim_checks import evaluate
    from popek_proofs.claims import ClaimError, select
    from popek_proofs.devices import check_device_claim, device_claims

    known = {claim.id: claim for claim in device_claims()}
    of_devices = [known[name] for name in claims if name in known]
    others = [name for name in claims if name not in known]
    try:
        chosen = select(others) if others or not of_devices else []
        with certified(certify), progress("checking") as show:
            found = evaluate(chosen, timeout=timeout, jobs=jobs, certify=certify, progress=show)
    except ClaimError as error:
        raise UserError(str(error)) from None
    with working("asking of devices"):
        beside = [check_device_claim(claim) for claim in of_devices]
    if json:
        document = {"schema": "popek/claims/1", "claims": [claim.to_json() for claim in found]}
        print_json(document | ({"of_devices": [one.to_json() for one in beside]} if beside else {}))
    else:
        if found:
            console().print(report.claims(found))
        if beside:
            console().print(device_report.claims(beside))
    if any(claim.unexpected for claim in found) or any(claim.unexpected for claim in beside):
        return UNEXPECTED
    return UNKNOWN if any(claim.unknown for claim in found) else 0
