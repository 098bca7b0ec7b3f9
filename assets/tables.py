"""How tables are shown in Dagster: column schemas, counts by reason, digests, and the owner."""

from collections.abc import Mapping

import dagster as dg
import pyarrow as pa

OWNERS = ["team:avatars"]


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """Returns a table's declared columns, with their meaning, as Dagster shows them."""
    columns = [
        dg.TableColumn(
            name=field.name,
            type=str(field.type),
            description=(field.metadata or {}).get(b"description", b"").decode(),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in schema
    ]
    return dg.TableSchema(columns=columns)


def reasons(counts: Mapping[str, int]) -> dg.MarkdownMetadataValue:
    """Returns what was dropped or refused as a Markdown table, the most frequent reason first."""
    if not counts:
        return dg.MetadataValue.md("none")
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = "\n".join(f"| {reason} | {count:,} |" for reason, count in ordered)
    return dg.MetadataValue.md(f"| reason | count |\n| --- | ---: |\n{rows}")


def boards_table(counts: Mapping[str, Mapping[str, int]]) -> dg.MarkdownMetadataValue:
    """Returns how many posts of each board were kept and refused as a Markdown table."""
    rows = [
        f"| {board} | {found['kept']:,} | {found['refused']:,} |"
        for board, found in sorted(counts.items())
    ]
    heading = ["| board | kept | refused |", "| --- | ---: | ---: |"]
    return dg.MetadataValue.md("\n".join(heading + rows))
