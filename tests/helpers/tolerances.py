"""Tolerances of all comparisons, and how each was measured."""

FLOAT64_KERNEL = 1e-10
"""Float64 kernel against float64 reference, relative to the largest value of a row.
Measured: 1e-15 to 3e-13 on the scenes of `helpers`; the rest is room for other compilers."""

FLOAT32_FACTOR = 2.0
"""A float32 kernel may be off by this times the error of the float32 reference ..."""

FLOAT32_FLOOR = 1e-6
"""... plus this, relative to the size of the tensor: eight units in the last place of float32."""

WALK = 256
"""Entries of a list beyond which the floor of gradients grows as the square root of their number,
for the portable kernels of x86-64 alone, without fused multiply-add: the walk back divides the
transmittance once an entry, and each division rounds. Measured with 600 entries: 2.6e-6 without
fused multiply-add; 2.3e-6 with it, which needs no room."""

WORST_ROW_FACTOR = 8.0
"""Same factor for the worst row alone. Two correct roundings of one ill-conditioned row differ by
chance, so the worst of some hundred rows is less informative than their mean."""

FLOAT32_BIAS = 3e-7
"""Mean relative error of single opacities in float32. Measured: 1e-7, the polynomial of 2^x."""

GRADIENT_COSINE = 1e-6
"""1 - cosine between a float32 gradient and the float64 reference's, per tensor."""

GRADIENT_BIAS = 1e-5
"""|Σ (gradient - reference)| / Σ |reference|: rounding averages out, a wrong formula does not."""

ZERO_ROW = 1e-5
"""A row whose reference gradient exceeds this times the largest row must not be exactly zero."""

CUTOFF_BAND = 1e-4
"""Relative half-width of the band around a hard threshold in which float32 may decide otherwise.
Exponents reach -5.5 and conics are rounded: some 1e-6 of error in a float32 amount, 1e-5 after
dozens of factors of transmittance."""

CLOSED_FORM = 1e-9
"""Float64 result against a formula on paper, relative."""

FINITE_DIFFERENCE_STEP = 1e-6
"""Step of torch.autograd.gradcheck in float64, with atol 1e-6 and rtol 1e-4."""
