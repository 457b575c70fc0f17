"""Scans: dataset, scan files, scaling, groups of neighbours, spatial splits.

Modules: ``dataset`` (what a scan is), ``io`` (read and write scan files), ``convert``, ``checks`` (what is wrong with a
file), ``scaling``, ``grouping``, ``splits``, ``ground_truth`` (known patches), ``batches`` (what training draws).
Behind ``io``: ``scan_file`` (arrays inside an NPZ file), ``scan_reader`` and ``contract`` (what they mean), ``units``
(counts, amplitudes, dose), ``statistics`` (one pass over the values).
"""
