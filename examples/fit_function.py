"""Fit a function of one variable from noisy samples; the data decide the number of splats."""

import numpy as np

from splatrender.regression import SplatRegressor

rng = np.random.default_rng(0)
x = np.sort(rng.uniform(0, 1, 300))[:, None]
clean = np.sin(2 * np.pi * x[:, 0]) * np.exp(-2 * x[:, 0])
model = SplatRegressor(n_splats="auto", max_rounds=20).fit(x, clean + 0.02 * rng.normal(size=300))

error = np.sqrt(np.mean((model.predict(x) - clean) ** 2))
print(model.summary())
print(f"root mean square error {error:.4f}, with noise of 0.02 in each sample")
print("centres of the splats:", model.measure_.means[:, 0].numpy().round(3))
