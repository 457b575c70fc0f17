"""The ptychographic iterative engine: passes over a scan that update the object, and on request probe and positions.

The far field of each pattern keeps its modelled phase and gets the measured modulus, or a part of it where the modelled
one is much weaker. The resulting change ``d_j`` of the exit wave updates the object and the probe:

    O += s sum_j conj(P_j) d_j / ((1 - a) sum_j |P_j|^2 + a max sum_j |P_j|^2)
    P += b sum_j conj(O_j) d_j / ((1 - a') sum_j |O_j|^2 + a' max sum_j |O_j|^2)

ePIE, rPIE and refinement all use this engine. They differ by their `StepSchedule`.

Sources: Maiden & Rodenburg, Ultramicroscopy 109, 1256 (2009); for the denominators and the momentum, Maiden, Johnson &
Li, Optica 4, 736 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ptychopinn.arrays import Array, QuotientStep, RepeatedStep, slices_of
from ptychopinn.data.patterns import Fetch, Patterns
from ptychopinn.forward import power
from ptychopinn.geometry import Canvas, Windows
from ptychopinn.monitor import Monitor
from ptychopinn.probe_variation import VaryingProbe
from ptychopinn.scan_model import ScanModel
from ptychopinn.solvers.background import fit_background
from ptychopinn.solvers.displacement import Displacement
from ptychopinn.solvers.flux import fit_flux
from ptychopinn.solvers.gradients import GradientModel, Gradients
from ptychopinn.solvers.object_state import ObjectState
from ptychopinn.solvers.options import PassOptions, Steps, default_batch_size
from ptychopinn.solvers.positions import MAX_MOVE_PX, FreePositions
from ptychopinn.solvers.probe_state import ProbeState
from ptychopinn.solvers.tally import Tally
from ptychopinn.solvers.variation import VariationState
from ptychopinn.tiles import Tile, Tiling
from ptychopinn.typing import AnyArray, FloatArray, IntArray

_MOMENTUM_STEPS_PER_PASS = 8
_THREAD_VALUES = 1 << 17  # exit-wave values that a thread processes at a time; fewer are slower


@dataclass(frozen=True, eq=False)
class _TileTask:
    """A tile, the windows of its members (indices into the used patterns), and the size of its batches."""

    tile: Tile
    windows: Windows
    batch_size: int


class PassEngine:
    """Makes passes over a scan; holds the current object and model.

    If the object is on the host and another library computes, a pass processes one tile after the other. Object and
    momentum of a tile are copied to the device, and written back before the next tile is read. So neighbours see each
    other's changes. Probe, positions and steps continue from tile to tile.

    Parameters
    ----------
    patterns:
        Patterns of the scan; their library computes, best from `Patterns.session`.
    used:
        (k,) int64: indices of the patterns that the passes use.
    model:
        Model of the scan; its arrays are of the patterns' library.
    start:
        The object, which is changed in place. No window leaves it. Free positions are limited to it, so it needs a
        margin of `MAX_MOVE_PX`.
    part:
        The order of the patterns, if they are a part of a larger scan; None takes random batches of all. Positions and
        flux of a part stay as they are: they are fitted to `figures` of all parts.

    Attributes
    ----------
    positions, flux:
        (k, 2) float64, and (k,) float32 or None, on the host: current values of the used patterns.
    background:
        Current value.
    figures:
        (k, 6 or 0 and 2 or 0) float64, after a pass over a part: the equation of the move of each used pattern, if
        positions are free, and its measured and modelled counts, if the flux is.
    """

    def __init__(
        self,
        patterns: Patterns,
        used: IntArray,
        model: ScanModel,
        start: Canvas,
        options: PassOptions,
        *,
        part: PartOrder | None = None,
    ) -> None:
        self._part = part
        self._patterns, self._used, self._given, self._options = patterns, used, model, options
        self._library = patterns.library
        self._rng = np.random.default_rng(options.seed)
        self.frame = start.frame
        self.positions = model.positions[used]
        size = patterns.data.N
        margin = MAX_MOVE_PX if options.update_positions else 0
        self._tiling = Tiling(start.frame, start.library, self.positions, size, self._library, margin)
        self._tasks = [
            _TileTask(
                tile,
                self._tiling.windows(tile, self.positions, size),
                options.batch_size or default_batch_size(len(tile.members), size, on_host=self._library.on_host),
            )
            for tile in self._tiling.tiles
        ]
        schedule, xp = options.schedule, self._library.xp
        self._probe = ProbeState(
            model,
            self._library,
            free=options.update_probe,
            momentum=schedule.probe_momentum,
            count=0 if options.update_positions else len(used),
            budget_bytes=patterns.spare_bytes,
        )
        self._variation: VariationState | None = None
        if model.variation is not None or options.update_variation > 0:
            self._variation = VariationState(model.variation, used, size, options, self._library)
            moves = options.update_positions
            self._probe.add_to_first(self._variation.settle(self._probe.modes[0, ...], without_moves=moves))
            self._probe.conserve_energy(self._variation.energy)
        self.flux: FloatArray | None = None if model.flux is None else model.flux[used]
        if options.update_flux and self.flux is None:
            self.flux = np.ones(len(used), np.float32)
        self.background = model.background
        if options.update_background is not None and self.background is None:
            self.background = xp.zeros((size, size), dtype=xp.float32, device=self._library.device)
        # A part of a scan lacks windows of a batch, whose light may add up elsewhere: it takes that of one window.
        light = power(model.exposed_probe(self._library)[None, ...], self._library)
        self._peak = None if part is None else float(xp.max(light))
        self._repeated: RepeatedStep[Sequence[Gradients]] = self._library.repeated_step()
        self._free_positions = FreePositions(self.positions, schedule.position_step)
        self.figures: FloatArray | None = None
        place = self._library if self._tiling.is_whole else start.library
        self._state = ObjectState.at_rest(start.array, place)

    @property
    def canvas(self) -> Canvas:
        """The current object."""
        return Canvas(self._state.object, self.frame, self._state.library)

    @property
    def momentum(self) -> tuple[Array, Array]:
        """``velocity`` and ``last`` of `ObjectState`; an engine that gets those of another one goes on where it was."""
        return self._state.velocity, self._state.last

    @momentum.setter
    def momentum(self, momentum: tuple[Array, Array]) -> None:
        self._state.velocity, self._state.last = momentum

    @property
    def probe(self) -> Array:
        """(modes, N, N) complex64, the current probe."""
        return self._probe.modes

    @property
    def runaways(self) -> int:
        """Number of positions that ran away and were set back."""
        return self._free_positions.runaways

    @property
    def weight_runaways(self) -> int:
        """Number of patterns whose weights ran away and were set to 0."""
        return 0 if self._variation is None else self._variation.runaways

    def run(self, done: int, passes: int, monitor: Monitor) -> float | None:
        """Make one pass.

        Parameters
        ----------
        done, passes:
            Number of passes before this one, and in total.
        monitor:
            Asked at every batch.

        Returns
        -------
        ``R = sqrt(sum (A - A_model)^2 / sum A^2)`` over the good pixels, evaluated for each pattern just before it
        updates the object; None if cancelled.
        """
        schedule = self._options.schedule
        plan = [(task, self._batches_of(task)) for task in self._tasks]
        members = [task.tile.members[chosen] for task, batches in plan for chosen in batches if len(chosen)]
        reading = iter(self._patterns.batches([self._used[some] for some in members]))  # reads ahead into the next tile
        tally = Tally(members)
        if self._variation is None:
            self._probe.begin_pass(passes - done)
        for task, batches in plan:
            state = self._state.load(self._tiling, task.tile)
            every = max(1, len(batches) // _MOMENTUM_STEPS_PER_PASS)
            for number, chosen in enumerate(batches, 1):
                if monitor.cancelled:
                    self._state.store(self._tiling, task.tile, state)
                    return None
                steps = schedule.at((done + (number - 1) / len(batches)) / passes)  # as if the object were not in tiles
                if len(chosen):  # a batch of a larger scan may have nothing in this part
                    _, fetch = next(reading)
                    tally.add(self._update(task, state, chosen, fetch, steps), self._library)
                if schedule.momentum > 0 and number % every == 0:
                    state.apply_momentum(steps.momentum)
            self._state.store(self._tiling, task.tile, state)
        self._probe.end_pass()
        self._fit_after_pass(tally)
        return tally.residual(self._library)

    def multiply_by_phase(self, phase: Array) -> None:
        """Multiply object and momentum by ``exp(i phase)``, (H, W) float32 of the object's library."""
        self._state.multiply_by_phase(phase)

    @property
    def model(self) -> ScanModel:
        """The current model. Patterns that the passes do not use keep what was given, or have a flux of 1."""
        model = replace(self._given, probe=self._probe.modes, background=self.background)
        if self._options.update_positions:
            positions = model.positions.copy()
            positions[self._used] = self.positions
            model = replace(model, positions=positions)
        if self.flux is not None:
            flux = np.ones(len(model.positions), np.float32) if model.flux is None else model.flux.copy()
            flux[self._used] = self.flux
            model = replace(model, flux=flux)
        if self._variation is not None:
            model = replace(model, variation=self._variation.of_all(len(model.positions)))
        return model

    def result(self) -> tuple[Canvas, ScanModel]:
        """Object and model. The probe with its variation is scaled to its energy, the object by the inverse factor.

        Free modes are made orthogonal.
        """
        model, canvas = self.model, self.canvas
        probe, share = self._probe.result(None if self._variation is None else self._variation.energy)
        of_object = share if self._tiling.is_whole else self._library.to_host(share)
        variation = model.variation
        if variation is not None:
            variation = replace(variation, modes=variation.modes * share)
        model = replace(model, probe=probe, variation=variation)
        return replace(canvas, array=canvas.array / of_object), model

    def _batches_of(self, task: _TileTask) -> list[IntArray]:
        """The batches of a pass over a tile."""
        if self._part is None:
            order = self._rng.permutation(len(task.windows))
            # Sorted, so that a memory-mapped scan is read forwards.
            return [np.sort(order[part]) for part in slices_of(len(order), task.batch_size)]
        return self._part.batches()

    def _update(
        self, task: _TileTask, state: ObjectState, chosen: IntArray, fetch: Fetch, steps: Steps
    ) -> Sequence[Gradients]:
        """Update the object, and a free probe, with a batch of patterns."""
        library = self._library
        windows = task.windows.take(library.from_host(chosen))
        members = task.tile.members[chosen]
        inputs = {"corners": windows.corners, "fractions": windows.fractions}
        if self.flux is not None:
            roots = np.sqrt(self.flux[members])
            inputs["roots"] = library.from_host(roots[:, None, None, None])
        if self.background is not None:
            inputs["background"] = self.background
        if self._variation is not None:
            inputs["weights"] = library.from_host(self._variation.weights[members])
            if self._options.update_probe and self._options.update_variation > 0:
                inputs["damping"] = library.from_host(self._variation.damping(members))
        if library.on_host:  # each thread reads its patterns
            return self._step(state, windows, inputs, fetch, steps, members)
        inputs |= {"measured": fetch(slice(None)), "steps": library.from_host(np.array(steps, np.float32))}

        def compute(given: Mapping[str, Array]) -> Sequence[Gradients]:
            some = replace(windows, corners=given["corners"], fractions=given["fractions"])
            step = Steps(*(given["steps"][k] for k in range(len(steps))))
            return self._step(state, some, given, lambda part: given["measured"][part, ...], step)

        varying = [] if self._variation is None else self._variation.arrays
        return self._repeated(inputs, [state.object, *self._probe.arrays, *varying], compute)

    def _step(
        self,
        state: ObjectState,
        windows: Windows,
        inputs: Mapping[str, Array],
        fetch: Fetch,
        steps: Steps,
        members: IntArray | None = None,
    ) -> Sequence[Gradients]:
        library, roots = self._library, inputs.get("roots")
        gradients = GradientModel(self._patterns, inputs.get("background"), self._options, steps.alpha, library)
        # Depends only on the shape, so that the number of cores does not change the result.
        step = library.batch_length(math.prod(self._probe.wave_shape), _THREAD_VALUES)

        weights, varying, fitted = inputs.get("weights"), None, None
        if self._variation is not None:
            varying = VaryingProbe(self._probe.modes, self._variation.modes, self._probe.exposure, library)
            if self._options.update_variation > 0:
                fitted = self._variation.batch(weights, self._probe.exposure)

        def compute(part: slice) -> Gradients:
            some = windows[part]
            if varying is None or weights is None:
                probes = self._probe.at(some.fractions, None if members is None else members[part])
            else:
                probes = varying(some.fractions, weights[part, ...])
            return gradients(
                state.object,
                some,
                probes,
                None if roots is None else roots[part, ...],
                fetch(part),
                None if fitted is None else fitted.part(part),
            )

        parts = library.spread(compute, slices_of(len(windows), step))
        state.object = library.add_quotient(
            state.object,
            [part.gradient for part in parts],
            [part.light for part in parts],
            [part.windows.corners for part in parts],
            QuotientStep(steps.object_step, steps.alpha, self._peak),
        )
        if self._options.update_probe:
            self._step_probe(parts, inputs.get("damping"), steps.probe_step)
        return parts

    def _step_probe(self, parts: Sequence[Gradients], damping: Array | None, step: float | Array) -> None:
        """Update a free probe, and the modes of its variation, if they are free."""
        library, xp, variation = self._library, self._library.xp, self._variation
        spectrum, light = self._probe.gradient([part.probe for part in parts if part.probe is not None])
        if damping is not None and variation is not None:
            of_modes = sum(part.variation for part in parts if part.variation is not None)
            both = xp.reshape(xp.concat([spectrum[:1, ...], of_modes]), (damping.shape[0], -1))
            both = xp.reshape(library.matmul(library.cast(damping, "complex64"), both), (-1, *spectrum.shape[1:]))
            variation.step(both[1:, ...], light, step)
            spectrum = xp.concat([both[:1, ...], spectrum[1:, ...]])
        self._probe.step(spectrum, light, step)

    def _fit_after_pass(self, tally: Tally) -> None:
        """Fit what is fitted to all patterns of a pass: positions, flux and background."""
        options, library = self._options, self._library
        rows = tally.figures_in_order(library)
        if options.update_variation > 0 and self._variation is not None:
            first = 6 if options.update_positions else 0
            self._probe.add_to_first(
                self._variation.end_pass(rows[:, first:], self._probe.modes[0, ...], moves=options.update_positions)
            )
        if self._part is not None:
            self.figures = rows
            return
        if options.update_positions:
            self._move_positions(rows[:, :4].reshape(-1, 2, 2), rows[:, 4:6])
        if options.update_flux and self.flux is not None:
            self.flux = fit_flux(self.flux, rows[:, -2], rows[:, -1])
        if options.update_background is not None:
            self.background = fit_background(
                self.background, tally.background, options.update_background, options.likelihood, library
            )

    def _move_positions(self, normal: FloatArray, right: FloatArray) -> None:
        """Move the positions, inside the frames of their tiles, and the object with them, unless it stays."""
        moved = self._free_positions.move(self.positions, normal, right)
        half = (self._patterns.data.N - 1) / 2
        tasks, size = [], self._patterns.data.N
        for task in self._tasks:
            low = np.asarray(task.tile.frame.origin) + half
            high = np.maximum(low + np.asarray(task.tile.frame.shape) - size, low)
            members = task.tile.members
            moved[members] = np.clip(moved[members], low, high)
            tasks.append(replace(task, windows=self._tiling.windows(task.tile, moved, size)))
        if self._options.schedule.object_step > 0:
            self._displace_object(moved - self.positions)
        self.positions, self._tasks = moved, tasks

    @cached_property
    def _given_light(self) -> AnyArray:
        """(N, N) on the host: the intensity of the probe that was given, so that no later pass waits for it."""
        light: AnyArray = self._library.to_host(power(self._given.probe[None, ...], self._library))[0]
        return light

    def _displace_object(self, moves: FloatArray) -> None:
        """Displace the object by what moves of the positions have in common."""
        local = self.frame.local(self.positions)
        displacement = Displacement.of_moves(local, moves, self._given_light, self.frame.shape)
        if displacement.matters:
            self._state.displace(displacement)


class PartOrder:
    """The order of passes over a larger scan, for the part of it that an engine works on.

    Every part takes its patterns in the order in which one engine would take them. So neighbouring parts make the same
    changes to the pixels that they share.

    Parameters
    ----------
    numbers:
        (k,) int64, ascending: which of the used patterns of the whole scan those of the part are.
    total:
        Number of used patterns of the whole scan.
    seed:
        As in `PassOptions`.
    done:
        Number of passes that were made before.
    batch_size:
        Patterns of the whole scan that update the object together; a part has few of them or none.
    full:
        Whether a part has batches of ``batch_size`` of its own patterns instead.
    """

    def __init__(self, numbers: IntArray, total: int, *, seed: int, done: int, batch_size: int, full: bool) -> None:
        self._batch_size, self._full = batch_size, full
        self._index = np.full(total, -1, np.int64)
        self._index[numbers] = np.arange(len(numbers))
        self._rng = np.random.default_rng(seed)
        for _ in range(done):
            self._rng.permutation(total)

    def batches(self) -> list[IntArray]:
        """The batches of the next pass, as sorted indices of patterns of the part; some may be empty."""
        order = self._index[self._rng.permutation(len(self._index))]
        if self._full:
            order = order[order >= 0]
        return [np.sort(some[some >= 0]) for some in (order[part] for part in slices_of(len(order), self._batch_size))]
