"""What the administrator of a site approves is what was shown, and that alone may run."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from fl_admin.kits.approval import Approvals, code_texts, custom_folder, difference, set_byoc_right
from fl_admin.kits.local_files import AUTHORIZATION
from mmar_runtime.audit import AUDIT_FILE, verify_audit
from mmar_runtime.errors import ConfigError
from mmar_runtime.policy.files.tree_hash import tree_hash
from mmar_runtime.policy.site_policy import SITE_POLICY_FILE, read_site_policy

REPOSITORY = Path(__file__).resolve().parents[3]
OWN_CODE = REPOSITORY / "tests" / "mmars" / "own_components"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """The ``local`` folder of a kit, with NVFlare's rights as a kit has them, and no policy."""
    folder = tmp_path / "kit" / "local"
    folder.mkdir(parents=True)
    (folder / "authorization.json").write_text(json.dumps(AUTHORIZATION))
    return folder


@pytest.fixture
def policy_file(local: Path) -> Path:
    return local / SITE_POLICY_FILE


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OWN_CODE, tmp_path / "mmar")) / "custom"


def write_policy(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({"policy_version": 1, **fields}))
    file.chmod(0o600)


def approve(policy_file: Path, custom: Path) -> str:
    approvals = Approvals(policy_file)
    with approvals.candidate(custom) as candidate:
        approvals.approve(candidate)
    return candidate.digest


def rights(local: Path) -> dict[str, str]:
    document = json.loads((local / "authorization.json").read_text())
    return {role: found.get("byoc") for role, found in document["permissions"].items()}


# --- an approval


def test_an_approval_writes_the_policy_a_copy_and_a_line(
    policy_file: Path, local: Path, custom: Path
) -> None:
    digest = approve(policy_file, custom)

    policy = read_site_policy(policy_file)
    assert (policy.byoc.mode, policy.byoc.approved) == ("by_hash", (tree_hash(custom),))
    assert digest == tree_hash(custom) == tree_hash(local / "approved" / digest)
    audit = local.parent / AUDIT_FILE
    report = verify_audit(audit)
    assert (report.lines, report.findings) == (1, ())
    line = json.loads(audit.read_text())
    assert (line["event"], line["code"], line["policy"]) == ("code-approved", digest, policy.digest)


def test_nobody_else_can_change_what_was_written(
    policy_file: Path, local: Path, custom: Path
) -> None:
    approve(policy_file, custom)

    assert stat.S_IMODE(policy_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((local / "approved").stat().st_mode) == 0o700


def test_everything_else_in_the_policy_stays(policy_file: Path, custom: Path) -> None:
    write_policy(policy_file, min_dataset_size=20, signers=[], byoc={"mode": "off"})

    approve(policy_file, custom)

    document = json.loads(policy_file.read_text())
    assert document.pop("byoc")["mode"] == "by_hash"
    assert document == {"policy_version": 1, "min_dataset_size": 20, "signers": []}


@pytest.mark.parametrize("byoc", [{"mode": "by_hash"}, {"mode": "by_hash", "approved": []}])
def test_a_site_that_has_written_by_hash_beforehand_gets_its_first_approval(
    policy_file: Path, custom: Path, byoc: Any
) -> None:
    """Such a policy is refused where a job is judged; this is the way out of it."""
    write_policy(policy_file, byoc=byoc)
    with pytest.raises(ConfigError, match="allows nothing"):
        read_site_policy(policy_file)

    digest = approve(policy_file, custom)

    assert read_site_policy(policy_file).byoc.approved == (digest,)


def test_nothing_is_left_of_a_candidate_that_was_not_approved(
    policy_file: Path, local: Path, custom: Path
) -> None:
    with Approvals(policy_file).candidate(custom):
        pass

    assert list((local / "approved").iterdir()) == []
    assert not policy_file.exists()
    assert not (local.parent / AUDIT_FILE).exists()


def test_what_is_approved_is_what_was_shown(policy_file: Path, custom: Path) -> None:
    """The folder changes between the question and the answer."""
    approvals = Approvals(policy_file)
    shown = tree_hash(custom)
    with approvals.candidate(custom) as candidate:
        (custom / "own_loss.py").write_text("import os\n")
        approvals.approve(candidate)

    assert read_site_policy(policy_file).byoc.approved == (shown,)
    assert tree_hash(custom) != shown


def test_nvflares_own_right_follows(policy_file: Path, local: Path, custom: Path) -> None:
    """Without it each job with a custom folder is refused; roles that submit nothing keep none."""
    assert set(rights(local).values()) == {"none", None}
    digest = approve(policy_file, custom)
    assert {role for role, byoc in rights(local).items() if byoc == "any"} == {
        "project_admin",
        "lead",
    }

    Approvals(policy_file).revoke(digest)

    assert set(rights(local).values()) == {"none", None}


def test_a_second_kit_without_such_a_file_needs_none(tmp_path: Path) -> None:
    assert set_byoc_right(tmp_path, "any") is False
    (tmp_path / "authorization.json").write_text("[]")
    with pytest.raises(ConfigError, match="'permissions'"):
        set_byoc_right(tmp_path, "any")


# --- what is refused


def test_code_that_nobody_can_read_is_not_even_shown(policy_file: Path, custom: Path) -> None:
    (custom / "fast.so").write_bytes(b"\x7fELF")

    with (
        pytest.raises(ConfigError, match=r"custom/fast\.so: is not a text"),
        Approvals(policy_file).candidate(custom),
    ):
        raise AssertionError


def test_a_link_is_not_followed(policy_file: Path, custom: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("SECRET = 1\n")
    (custom / "link.py").symlink_to(tmp_path / "secret.py")

    with (
        pytest.raises(ConfigError, match="is not a plain file"),
        Approvals(policy_file).candidate(custom),
    ):
        raise AssertionError


def test_a_policy_that_takes_all_code_is_not_tightened_by_the_way(
    policy_file: Path, custom: Path
) -> None:
    write_policy(policy_file, byoc={"mode": "on"})

    with (
        pytest.raises(ConfigError, match="there is nothing to approve"),
        Approvals(policy_file).candidate(custom),
    ):
        raise AssertionError


def test_a_policy_with_a_fault_is_not_touched(policy_file: Path) -> None:
    write_policy(policy_file, min_data_set_size=5)

    with pytest.raises(ConfigError, match=f"{SITE_POLICY_FILE}: min_data_set_size"):
        Approvals(policy_file)


def test_nor_one_that_everybody_can_write(policy_file: Path) -> None:
    write_policy(policy_file)
    policy_file.chmod(0o666)

    with pytest.raises(ConfigError, match="can be written by everybody"):
        Approvals(policy_file)


def test_a_folder_that_is_no_kit_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        Approvals(tmp_path / "local" / SITE_POLICY_FILE)


# --- several approvals


def test_the_next_one_is_shown_as_a_difference_to_the_last(policy_file: Path, custom: Path) -> None:
    first = approve(policy_file, custom)
    (custom / "own_loss.py").write_text((custom / "own_loss.py").read_text() + "import os\n")

    with Approvals(policy_file).candidate(custom) as candidate:
        pass

    assert candidate.last == first
    changed = [one for one in candidate.difference if one.startswith(("+", "-"))]
    assert changed == ["--- approved/own_loss.py", "+++ custom/own_loss.py", "+import os"]


def test_a_copy_that_was_changed_is_nothing_to_compare_with(
    policy_file: Path, local: Path, custom: Path
) -> None:
    """Else what was put into it by somebody would not be shown."""
    digest = approve(policy_file, custom)
    (local / "approved" / digest / "own_loss.py").write_text("changed\n")
    (custom / "own_loss.py").write_text("changed\n")

    with Approvals(policy_file).candidate(custom) as candidate:
        pass

    assert candidate.last is None
    assert "+changed" in candidate.difference


def test_the_same_code_again_is_known(policy_file: Path, custom: Path) -> None:
    approve(policy_file, custom)

    with Approvals(policy_file).candidate(custom) as candidate:
        assert candidate.known


def test_revoking_takes_one_from_the_list_and_the_last_switches_code_off(
    policy_file: Path, custom: Path
) -> None:
    first = approve(policy_file, custom)
    (custom / "more.py").write_text("x = 1\n")
    second = approve(policy_file, custom)

    Approvals(policy_file).revoke(first)
    assert read_site_policy(policy_file).byoc.approved == (second,)
    Approvals(policy_file).revoke(second)

    assert read_site_policy(policy_file).byoc.mode == "off"
    with pytest.raises(ConfigError, match="is not approved"):
        Approvals(policy_file).revoke(second)


# --- where the code is, and how it is shown


def test_the_code_of_a_job_an_mmar_or_a_folder_of_it(tmp_path: Path, custom: Path) -> None:
    job = tmp_path / "job"
    shutil.copytree(custom.parent, job / "app")

    assert custom_folder(job) == job / "app" / "custom"
    assert custom_folder(custom.parent) == custom
    assert custom_folder(custom) == custom


def test_a_job_without_code_has_nothing_to_approve(tmp_path: Path, custom: Path) -> None:
    shutil.rmtree(custom)
    archive = tmp_path / "job.zip"
    archive.write_bytes(b"PK")

    for path in (custom.parent, archive, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="holds no folder 'custom'"):
            custom_folder(path)


def test_nothing_in_code_can_move_the_terminal_or_hide(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.py").write_bytes("good\rbad\x1b[2J\u202e\u200b\n\ttab\n".encode())
    (new / "b\n+++ c.py").write_text("x\n")
    (new / "empty.py").write_text("")

    lines = list(difference(code_texts(new), {}, "custom"))

    assert "+good\\rbad\\x1b[2J\\u202e\\u200b" in lines
    assert "+\ttab" in lines
    assert "+++ custom/b\\n+++ c.py" in lines
    assert "+++ custom/empty.py (empty)" in lines
    assert all("\n" not in line and "\x1b" not in line for line in lines)


def test_files_that_are_gone_are_shown_too(tmp_path: Path) -> None:
    for folder, name in (("old", "a.py"), ("new", "b.py")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("x = 1\n")

    lines = list(difference(*(code_texts(tmp_path / one) for one in ("new", "old")), "custom"))

    assert {"--- approved/a.py", "+++ /dev/null", "--- /dev/null", "+++ custom/b.py"} <= set(lines)
