"""Print 'N passed, N failed, N skipped' from the JUnit files of a folder; fail when no test passed or one failed."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main(folder: str) -> int:
    """Sum up the files; the exit code."""
    total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for file in sorted(Path(folder).glob("*.xml")):
        for suite in ET.parse(file).getroot().iter("testsuite"):
            for key in total:
                total[key] += int(suite.get(key, 0))
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print(f"{max(passed, 0)} passed, {failed} failed, {total['skipped']} skipped")
    return 0 if passed > 0 and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
