"""Files of beamlines through Ptychodus's own readers: specs/12-ptychodus.md."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from ptychopinn.config import SimulationConfig
from ptychopinn.config.reading import ReadOptions
from ptychopinn.data.checks import check_scan
from ptychopinn.data.io import read_scan
from ptychopinn.data.readers.find import knows, read_named
from ptychopinn.errors import ConfigError, DataError
from ptychopinn.simulate import simulate_scan
from ptychopinn.testing import ReaderConformance
from ptychopinn_ptychodus.file_readers import FORMATS, READERS, fitting

_SCAN = simulate_scan(SimulationConfig(N=32, rows=4, cols=5, seed=5))
COUNTS = np.rint(_SCAN.counts(slice(None))).astype(np.uint16)
METRES = (_SCAN.positions - _SCAN.positions.mean(axis=0)) * 1e-7  # (y, x)


def xpp(path: Path) -> Path:
    """LCLS: positions in micrometres, turned by half a turn; patterns of weak pulses have none."""
    with h5py.File(path, "w") as file:
        file["jungfrau1M/image_img"] = COUNTS
        file["lmc/ch03"], file["lmc/ch04"] = -METRES[:, 1] * 1e6, np.zeros(len(METRES))
        file["lmc/ch05"] = -METRES[:, 0] * 1e6
        file["ipm2/sum"] = np.where(np.arange(len(COUNTS)) == 3, 0.0, 2500.0)
    return path


def cssi(path: Path, name: str = "exchange/data") -> Path:
    with h5py.File(path, "w") as file:
        file[name] = COUNTS
        file["exchange/motor_pos"] = METRES[:, ::-1] * 1e3
    return path


def hxn(path: Path) -> Path:
    """HXN of the second style: amplitudes, and the whole geometry."""
    with h5py.File(path, "w") as file:
        file["diffamp"] = np.sqrt(COUNTS).astype(np.float32)
        file["points"] = METRES[:, ::-1].T * 1e6
        file["ccd_pixel_um"], file["lambda_nm"], file["z_m"], file["angle"] = 75.0, 0.155, 2.0, 0.0
    return path


def lamni(path: Path, centre: tuple[int, int] = (20, 17)) -> Path:
    """LamNI: a wider detector with the beam aside, positions in a text file beside it that counts from 1."""
    wide = np.zeros((len(COUNTS), 40, 44), np.uint16)
    wide[:, centre[1] - 16 : centre[1] + 16, centre[0] - 16 : centre[0] + 16] = COUNTS
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry/data/eiger_4", data=wide)
        data.attrs.update(Center_x_pixel=centre[0], Center_y_pixel=centre[1], Detector_distance_m=2.0)
        data.attrs.update(Photon_energy_kev=8.0, Pixel_size=75e-6)
    rows = [f"{k + 1} {-x * 1e6} 0 {-y * 1e6} 0" for k, (y, x) in enumerate(METRES)]
    header = "Detector_Count Average_x_st_fzp Stdev_x_st_fzp Average_y_st_fzp Stdev_y_st_fzp"
    path.with_suffix(".dat").write_text("\n".join(["scan 1, angle 0", header, *rows]) + "\n")
    return path


class TestXpp(ReaderConformance):
    reader = READERS[0]
    entry_point = "ptychopinn_ptychodus.file_readers"

    def write(self, folder: Path) -> Path:
        return xpp(folder / "scan.h5")


def test_the_only_reader_that_opens_a_file_reads_it(tmp_path: Path) -> None:
    """[PTY-080] [PTY-082] Patterns without a position are left out, and it is said."""
    raw = read_named("ptychodus-files", xpp(tmp_path / "scan.h5"))
    kept = np.arange(len(COUNTS)) != 3
    np.testing.assert_array_equal(raw.patterns, COUNTS[kept])
    np.testing.assert_allclose(raw.positions, METRES[kept], atol=1e-15)
    assert "1 of 20 patterns have no position and are left out." in raw.notes


def test_amplitudes_are_read_as_such_through_every_check(tmp_path: Path) -> None:
    """[PTY-080] [PTY-083] With the object pixel of the file's geometry."""
    path = hxn(tmp_path / "scan.h5")
    data = read_scan(path, probe="mean", nphotons=float(COUNTS.sum(axis=(1, 2)).mean()))
    np.testing.assert_allclose(data.counts(slice(None)), COUNTS, rtol=1e-5)
    pixel = 0.155e-9 * 2.0 / (32 * 75e-6)
    assert data.metadata.pixel_size_m == pytest.approx(pixel, rel=1e-6)
    np.testing.assert_allclose(data.positions - data.positions[0], (METRES - METRES[0]) / pixel, atol=1e-4)


def test_patterns_are_cut_around_the_beam_and_meet_the_positions_beside_them(tmp_path: Path) -> None:
    """[PTY-081] [PTY-082]"""
    if version("ptychodus").startswith("1.6"):
        pytest.skip("Ptychodus 1.6 does not read the centre of the beam")
    raw = read_named("ptychodus-lamni", lamni(tmp_path / "scan.h5"))
    np.testing.assert_array_equal(raw.patterns[:, 1:33, 1:33], COUNTS)  # DC of 34 x 34 is at 17
    assert raw.size == (34, 34)
    np.testing.assert_allclose(raw.positions, METRES, atol=1e-15)
    assert any("row 17 and column 20" in note for note in raw.notes)


def test_one_of_several_readers_has_to_be_named(tmp_path: Path) -> None:
    """[PTY-081] Nothing is guessed."""
    path = tmp_path / "scan_001.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = COUNTS
    assert {one.name for one in fitting(path)} > {"ptychodus-2idd", "ptychodus-cnm"}
    with pytest.raises(DataError, match=r"may be of \d formats.*ptychodus-2idd") as refused:
        read_scan(path, probe="mean", reader="ptychodus-files")
    assert "--reader" in refused.value.remedy
    assert check_scan(path, ReadOptions(reader="ptychodus-files"))[0].message in str(refused.value)
    with pytest.raises(DataError, match="has no positions") as refused:
        read_scan(path, probe="mean")
    assert "--reader" in refused.value.remedy
    with pytest.raises(ConfigError, match="no reader 'nobody'"):
        read_scan(path, reader="nobody")


def test_what_a_reader_of_ptychodus_raises_becomes_an_error_of_ours(tmp_path: Path) -> None:
    """[PTY-084]"""
    for form in FORMATS:
        path = tmp_path / f"scan_1_2{form.suffixes[0]}"
        path.write_bytes(b"no such format")
        with pytest.raises(DataError) as refused:
            read_named(form.name, path)
        assert refused.value.remedy


def linked(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["exchange/data"]
        file["exchange/data"] = h5py.ExternalLink("../outside.h5", "/exchange/data")


def looped(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["exchange/again"] = file["exchange"]


def test_a_file_cannot_lead_out_of_its_folder_nor_round_in_circles(tmp_path: Path) -> None:
    """[PTY-085] Also a neighbour of its series, which its readers open too."""
    cssi(tmp_path / "outside.h5")
    folder = tmp_path / "folder"
    folder.mkdir()
    for change in (linked, looped):
        path = cssi(folder / "scan_1.h5")
        change(path)
        assert not knows(READERS[0], path)
        with pytest.raises(DataError, match="not in the folder|reached twice"):
            read_named("ptychodus-cssi", path)
        path.rename(folder / "scan_2.h5")
        with pytest.raises(DataError, match="scan_2"):
            read_named("ptychodus-cssi", cssi(path))
        (folder / "scan_2.h5").unlink()
    (folder / "scan_2.h5").symlink_to(tmp_path / "outside.h5")
    with pytest.raises(DataError, match="out of its folder"):
        read_named("ptychodus-cssi", path)


def test_nothing_is_unpickled_and_no_image_names_other_files(tmp_path: Path) -> None:
    """[PTY-085]"""
    np.savez(tmp_path / "a.npz", patterns=np.array([object()]), indexes=np.arange(1))
    with pytest.raises(DataError, match="object"):
        read_named("ptychodus-npz", tmp_path / "a.npz")
    text = '<OME><Image ID="0"><Pixels><TiffData><UUID FileName="/etc/x.tif">u</UUID></TiffData></Pixels></Image></OME>'
    tifffile.imwrite(tmp_path / "b_1.tif", COUNTS[0], description=f'<?xml version="1.0"?>{text}', metadata=None)
    with pytest.raises(DataError, match="name other files"):
        read_named("ptychodus-tiff", tmp_path / "b_1.tif")


def test_offering_the_readers_imports_no_ptychodus_and_using_them_no_window(tmp_path: Path) -> None:
    """[PTY-086]"""
    code = (
        "import sys; import ptychopinn_ptychodus.file_readers as f; assert 'ptychodus' not in sys.modules;"
        "from ptychopinn.data.readers.find import plugin_readers; assert f.READERS[0] in plugin_readers();"
        "from pathlib import Path; assert f.fitting(Path(sys.argv[1])); assert 'ptychodus' in sys.modules;"
        "assert not [m for m in sys.modules if 'qt' in m.lower() or m == 'torch']"
    )
    subprocess.run([sys.executable, "-c", code, str(cssi(tmp_path / "scan.h5"))], check=True)
