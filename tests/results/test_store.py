"""The store: what counts, what a crash leaves, who may write, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from vlpbench.results import index
from vlpbench.results import store as store_module
from vlpbench.results.record import Cell, Env, Record, Series, Status
from vlpbench.results.store import Round, Store, StoreError, probe

ENV = Env(cpu="one", cores=2, memory=1, os="Linux", python="3.11", versions={"torch": "2"}, threads=1)
OTHER = ENV.model_copy(update={"cpu": "two"})


def record(seed: int = 0, *, status: Status = Status.OK, env: Env = ENV, value: float = 1.0, detail=None) -> Record:
    return Record(
        id=f"{seed:016x}",
        cell=Cell(arch="a", measure="latency", seed=seed),
        status=status,
        samples={"latency": Series(unit="s", values=(value,))},
        detail=detail or {},
        env=env,
        code="c0de",
        suite="s",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )


def part(seed: int = 0, number: int = 0, code: str = "c0de") -> Round:
    return Round(
        id=f"{seed}-{number}",
        cell=Cell(arch="a", measure="latency", seed=seed),
        env_id=ENV.id,
        code=code,
        round=number,
        seed=7,
        position=0,
        of=1,
        samples={"latency": Series(unit="s", values=(1.0, 2.0))},
        detail={},
        threads=1,
        started="2026-01-01T00:00:00+00:00",
        seconds=0.5,
    )


def test_what_is_appended_is_read_back_in_order(tmp_path):
    store = Store(tmp_path)
    sent = [record(seed, value=0.1 + seed) for seed in range(3)]
    for one in sent:
        store.append(one)
    assert Store(tmp_path).history() == sent
    assert (tmp_path / "records.jsonl").read_text().count("\n") == 3


def test_an_absent_folder_holds_no_records(tmp_path):
    store = Store(tmp_path / "none")
    assert (store.records(), store.rounds(), store.problems()) == ([], [], [])
    assert not (tmp_path / "none").exists()


def test_the_latest_record_counts_for_each_cell_and_environment(tmp_path):
    store = Store(tmp_path)
    for one in (
        record(0, status=Status.ERROR),
        record(1),
        record(0, env=OTHER, value=5.0),
        record(0, value=3.0, env=ENV.model_copy(update={"threads": 8, "commit": "abc"})),
    ):
        store.append(one)
    values = {(r.cell.seed, r.env.cpu): r.samples["latency"].values[0] for r in store.records()}
    assert values == {(0, "one"): 3.0, (1, "one"): 1.0, (0, "two"): 5.0}
    assert len(store.history()) == 4


def test_done_leaves_out_what_must_be_retried_and_other_machines(tmp_path):
    store = Store(tmp_path)
    for seed, status in enumerate(Status):
        store.append(record(seed, status=status))
    store.append(record(99, env=OTHER))
    wanted = {record(seed).cell.id for seed, status in enumerate(Status) if status in ("ok", "unsupported")}
    assert store.done(ENV.id) == wanted
    store.append(record(0, status=Status.OOM))
    assert record(0).cell.id not in store.done(ENV.id)


@pytest.mark.parametrize("keep", [1, 40, -2], ids=["one byte", "forty bytes", "all but the closing brace"])
def test_a_torn_last_line_is_reported_and_the_next_append_repairs_it(tmp_path, keep):
    store = Store(tmp_path)
    store.append(record(0))
    store.append(record(1))
    path = tmp_path / "records.jsonl"
    first, second, _ = path.read_bytes().split(b"\n")
    path.write_bytes(first + b"\n" + second[:keep])
    assert [r.cell.seed for r in store.records()] == [0]
    assert len(store.problems()) == 1
    assert "line 2" in store.problems()[0]
    store.append(record(2))
    assert [r.cell.seed for r in store.records()] == [0, 2]
    assert store.problems() == []


def test_a_last_line_that_only_lost_its_end_of_line_is_kept(tmp_path):
    store = Store(tmp_path)
    store.append(record(0))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    store.append(record(1))
    assert [r.cell.seed for r in store.records()] == [0, 1]


def test_a_last_line_of_zeros_after_a_power_cut_is_cut_off(tmp_path):
    store = Store(tmp_path)
    store.append(record(0))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes() + b"\0" * 50)
    store.append(record(1))
    assert [r.cell.seed for r in store.records()] == [0, 1]
    assert b"\0" not in path.read_bytes()


def test_rubbish_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    store = Store(tmp_path)
    store.append(record(0))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes() + b"rubbish\n" + path.read_bytes())
    with pytest.raises(StoreError, match=r"records\.jsonl line 2 is not JSON: b'rubbish'"):
        store.records()


def test_a_foreign_schema_version_is_refused_by_number(tmp_path):
    content = record(0).model_dump(mode="json") | {"schema_version": 2, "new_field": 1}
    (tmp_path / "records.jsonl").write_text(json.dumps(content) + "\n")
    with pytest.raises(StoreError, match="line 1 has schema version 2, and this vlpbench reads 1;"):
        Store(tmp_path).records()


def test_a_line_with_a_wrong_field_names_field_and_value(tmp_path):
    content = record(0).model_dump(mode="json") | {"status": "fine"}
    (tmp_path / "records.jsonl").write_text(json.dumps(content) + "\n")
    with pytest.raises(StoreError, match=r"line 1 is no record: status: .*fine"):
        Store(tmp_path).records()


def test_rounds_wait_until_a_record_takes_them_in(tmp_path):
    store = Store(tmp_path)
    with store.writing():
        for number in range(2):
            store.append_round(part(0, number))
        store.append_round(part(1, 0))
        store.append_round(part(2, 0, code="other"))
    assert [r.id for r in store.rounds(ENV.id, "c0de")] == ["0-0", "0-1", "1-0"]
    assert store.rounds(OTHER.id) == []
    with store.writing():
        store.append(record(0, detail={"visits": [{"id": "0-0"}, {"id": "0-1"}]}))
    assert [r.id for r in store.rounds()] == ["1-0", "2-0"]
    assert (tmp_path / "rounds.jsonl").read_text().count("\n") == 2


def test_the_file_of_rounds_goes_when_all_are_taken_in(tmp_path):
    store = Store(tmp_path)
    store.append_round(part())
    store.append(record(0, detail={"visits": [{"id": "0-0"}]}))
    assert not (tmp_path / "rounds.jsonl").exists()
    assert len(store.history()) == 1


HOLD = """
import sys, time
from pathlib import Path
from vlpbench.results.store import Store
with Store(Path(sys.argv[1])).writing():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_killed_one_lets_go(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another run is writing"):
            Store(tmp_path).append(record(0))
        assert Store(tmp_path).records() == []
        other.kill()
    Store(tmp_path).append(record(0))
    assert len(Store(tmp_path).records()) == 1


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write results in .*file/sub: Not a directory.*--out"):
        probe(tmp_path / "file" / "sub")


def full_disk(monkeypatch, after: int):
    """Makes the disk full after so many bytes of each write."""
    real = os.pwrite

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        if offset >= after:
            raise OSError(28, "No space left on device")
        return real(handle, data[: after - offset], offset)

    monkeypatch.setattr(store_module.os, "pwrite", pwrite)


def test_a_full_disk_keeps_what_is_there_and_leaves_no_half_line(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.append(record(0))
    whole = store.path.read_bytes()
    full_disk(monkeypatch, after=len(whole) + 20)
    with pytest.raises(StoreError, match=r"No space left on device; what was appended before is kept"):
        store.append(record(1))
    assert store.path.read_bytes() == whole


def test_two_thousand_records_are_read_in_a_fifth_of_a_second(tmp_path):
    rows = [record(seed) for seed in range(2000)]
    (tmp_path / "records.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in rows))
    seconds = []
    for _ in range(5):
        started = time.process_time()
        assert len(Store(tmp_path).records()) == 2000
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.2


def indexed(folder, monkeypatch) -> tuple[list[str], int]:
    """Cells of the entries, and how many lines were parsed to find them."""
    parsed = []
    real = store_module.parse

    def counting(*given):
        found = real(*given)
        parsed.append(len(found[0]))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "parse", counting)
        entries = Store(folder).entries()
    return [entry.cell_id for entry in entries], sum(parsed)


def test_what_is_indexed_is_not_parsed_and_what_was_added_is(tmp_path, monkeypatch):
    store = Store(tmp_path)
    rows = [record(seed, status=status, env=env) for seed, status in enumerate(Status) for env in (ENV, OTHER)]
    with store.writing():
        for row in rows:
            store.append(row)
    ids = [row.cell.id for row in rows]
    assert indexed(tmp_path, monkeypatch) == (ids, 0)
    assert [store.read(entry) for entry in store.entries()] == store.history()
    added = record(7, value=3.0)
    with store.path.open("a") as file:  # as by a writer that was killed before it could index
        file.write(added.model_dump_json() + "\n")
    assert indexed(tmp_path, monkeypatch) == ([*ids, added.cell.id], 1)
    assert store.read(store.entries()[-1]) == added
    with store.writing():
        pass
    assert indexed(tmp_path, monkeypatch) == ([*ids, added.cell.id], 0)


@pytest.mark.parametrize("change", ["one digit", "fewer lines", "broken index", "no index", "other reader"])
def test_an_index_of_anything_else_is_not_believed(tmp_path, monkeypatch, change):
    store = Store(tmp_path)
    with store.writing():
        for seed in range(3):
            store.append(record(seed))
    path, lies = store.path, tmp_path / index.INDEX
    stamp = path.stat()
    if change == "one digit":  # as long and as old as before
        path.write_bytes(path.read_bytes().replace(b'"seed":1', b'"seed":8'))
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif change == "fewer lines":
        path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[:2]) + b"\n")
    elif change == "other reader":
        monkeypatch.setattr(index, "_reader", lambda: b"newer code")
    elif change == "broken index":
        lies.write_bytes(lies.read_bytes()[:-5])
    else:
        lies.unlink()
    found, parsed = indexed(tmp_path, monkeypatch)
    assert found == [one.cell.id for one in store.history()]
    assert parsed == len(found) == (2 if change == "fewer lines" else 3)


def test_a_torn_line_after_what_is_indexed_is_named_and_repaired_as_ever(tmp_path):
    store = Store(tmp_path)
    store.append(record(0))
    with store.path.open("ab") as file:
        file.write(record(1).model_dump_json().encode()[:40])
    assert [entry.cell.seed for entry in store.entries()] == [0]
    assert store.problems() == [
        f"{store.path} line 2 was cut off by a crash and is left out; the next run removes it",
    ]
    store.append(record(2))
    assert [entry.cell.seed for entry in store.entries()] == [0, 2]
    assert store.problems() == []


def test_rubbish_and_foreign_schemas_after_what_is_indexed_are_refused_by_line(tmp_path):
    store = Store(tmp_path)
    store.append(record(0))
    whole = store.path.read_bytes()
    foreign = json.dumps(record(1).model_dump(mode="json") | {"schema_version": 2}).encode()
    for line, message in ((b"rubbish", "line 2 is not JSON"), (foreign, "line 2 has schema version 2")):
        store.path.write_bytes(whole + line + b"\n" + whole)
        with pytest.raises(StoreError, match=message):
            store.entries()


def test_an_index_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index.os, "replace", full)
    Store(tmp_path).append(record(0))
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]
    assert len(Store(tmp_path).entries()) == 1
