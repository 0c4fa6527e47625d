"""`popek check`: published claims, or claims of the user."""

from __future__ import annotations

from .certifying import Certify, certified
from .errors import UNEXPECTED, UNKNOWN, UserError
from .options import AsJson, Jobs, Timeout
from .output import console, print_json, progress


def check(
    *claims: str, timeout: Timeout = 0.0, jobs: Jobs = 0, certify: Certify = None, json: AsJson = False
) -> int:
    """Check published claims, or those of a file of your own, against the semantics.

    Args:
        claims: ids of claims, or TOML files; all that come with popek by default.
    """
    from popek.report import claims as report
    from popek_proofs.claim_checks import evaluate
    from popek_proofs.claims import ClaimError, select

    try:
        chosen = select(claims)
        with certified(certify), progress("checking") as show:
            found = evaluate(chosen, timeout=timeout, jobs=jobs, certify=certify, progress=show)
    except ClaimError as error:
        raise UserError(str(error)) from None
    if json:
        print_json({"schema": "popek/claims/1", "claims": [claim.to_json() for claim in found]})
    else:
        console().print(report.claims(found))
    if any(claim.unexpected for claim in found):
        return UNEXPECTED
    return UNKNOWN if any(claim.unknown for claim in found) else 0
