"""Documents against the JSON Schemas that come with popek."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
from referencing import Registry, Resource

from popek.schemas import schemas


def assert_valid(document: Mapping[str, Any]) -> None:
    """A document has the schema that it names."""
    registry: Registry[Any] = Registry().with_resources(
        (one["$id"], Resource.from_contents(one)) for one in schemas().values()
    )
    schema = schemas()[document["schema"]]
    jsonschema.Draft202012Validator(schema, registry=registry).validate(document)
