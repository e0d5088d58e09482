"""Lenses: the camera models of COLMAP, their exact inverse, and the pinhole in their place.

Every model is one chain, of which most coefficients are zero in most models:

    ray (x, y, z) -> q       perspective: q = (x, y)/z;   fisheye: q = θ (x, y)/|(x, y)|, θ = angle
                             between the ray and the axis z
    q -> q'                  q' = m(r²) q + tangential(q) + prism(q),  r = |q| (a fisheye's θ)
        m(s)                 (1 + k1 s + ... + k6 s⁶) / (1 + d1 s + d2 s² + d3 s³), or that of a
                             field of view, of division or of EUCM; see `splatrender.scenes.radial`
        tangential           (2 p1 u v + p2 (r² + 2u²),  2 p2 u v + p1 (r² + 2v²)),  q = (u, v)
        prism                (sx r² + sx2 r⁴, sy r² + sy2 r⁴)
                             RAD_TAN_THIN_PRISM_FISHEYE takes these two of m(r²) q instead of q
    q' -> pixel              (fx u' + cx, fy v' + cy)

Source: COLMAP, camera models (https://colmap.github.io/cameras.html); the models themselves are
Brown-Conrady with a rational radial term, Kannala-Brandt, Devernay-Faugeras (FOV), Fitzgibbon
(division), and Khomutenko et al. (EUCM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from splatrender.errors import InputError
from splatrender.scenes.camera_models import CAMERA_MODELS, PANORAMA, unknown_model
from splatrender.scenes.radial import Division, FieldOfView, Radial, Rational, Unified

Array = np.ndarray

# Widest tangent a pinhole substitute shows to each side: 127 degrees across. Beyond it a flat
# image spends most of its pixels on the stretched rim, and at 180 degrees it would be infinite.
MAX_TANGENT = 2.0

CONVERGED = 1e-10  # px: how exactly the inverse reproduces a pixel
_NEWTON_STEPS = 100


@dataclass(frozen=True)
class Lens:
    """A camera model with its image size; the formula is at the top of this module.

    Args:
        fx, fy: focal lengths [px], > 0.
        cx, cy: principal point [px].
        width, height: size of the image [px].
        fisheye: whether q is the angle θ rather than the tangent.
        k1, k2, k3, k4, k5, k6, d1, d2, d3: radial numerator and denominator.
        p1, p2, sx, sy, sx2, sy2: tangential and thin-prism terms.
        terms_of_bent: whether these are of m q rather than of q.
        omega: field of view of the FOV model [rad]; 0 for the others.
        division: coefficient of the division model; 0 for the others.
        alpha, beta: those of EUCM; alpha is 0 for the others.
        model: the name that COLMAP gives it, for messages.

    Example:
        >>> lens = Lens.from_colmap(2, 640, 480, [500.0, 320.0, 240.0, 0.1])
        >>> lens.img_from_cam(np.array([[0.5, 0.0, 1.0]])).tolist()
        [[576.25, 240.0]]
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    fisheye: bool = False
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0
    d1: float = 0.0
    d2: float = 0.0
    d3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    sx: float = 0.0
    sy: float = 0.0
    sx2: float = 0.0
    sy2: float = 0.0
    terms_of_bent: bool = False
    omega: float = 0.0
    division: float = 0.0
    alpha: float = 0.0
    beta: float = 1.0
    model: str = "PINHOLE"

    @classmethod
    def from_colmap(cls, model_id: int, width: int, height: int, params: list[float]) -> Lens:
        """Return the lens with COLMAP's model id (0 to 16), image size [px] and PARAMS[].

        Raises:
            InputError: the model is unknown or that of a panorama, the number of parameters wrong,
                or one out of range.
        """
        if model_id not in CAMERA_MODELS:
            raise InputError(unknown_model(f"number {model_id}"))
        name, keys = CAMERA_MODELS[model_id]
        if name == PANORAMA:
            raise InputError(
                f"camera model {name}: a panorama cannot be undistorted to one pinhole photo; cut "
                "it into perspective photos (COLMAP's panorama_sfm.py does) and register those"
            )
        if len(params) != len(keys):
            raise InputError(
                f"camera model {name} takes {len(keys)} parameters ({', '.join(keys)}), "
                f"got {len(params)}"
            )
        values = dict(zip(keys, map(float, params), strict=True))
        if not all(math.isfinite(value) for value in values.values()):
            raise InputError(f"camera model {name}: parameters must be finite, got {params}")
        if "f" in values:
            values["fx"] = values["fy"] = values.pop("f")
        if values["fx"] <= 0 or values["fy"] <= 0 or width <= 0 or height <= 0:
            raise InputError(
                f"camera model {name}: focal lengths and size must be positive, got "
                f"fx {values['fx']}, fy {values['fy']}, {width}x{height}"
            )
        if not (0 <= values.get("alpha", 0) <= 1 and values.get("beta", 1) > 0):
            raise InputError(
                f"camera model {name}: alpha must be from 0 to 1 and beta positive, got "
                f"{values['alpha']} and {values['beta']}"
            )
        return cls(
            width=width,
            height=height,
            fisheye=name.endswith("FISHEYE"),
            terms_of_bent=name.startswith("RAD_TAN"),
            model=name,
            **values,
        )

    @property
    def is_pinhole(self) -> bool:
        """True if the lens bends nothing: its photos can be used as they are."""
        radial = (*self._numerator, *self._denominator, self.omega, self.division, self.alpha)
        return not (self.fisheye or any(radial) or any(self._decentering))

    @property
    def _numerator(self) -> tuple[float, ...]:
        return self.k1, self.k2, self.k3, self.k4, self.k5, self.k6

    @property
    def _denominator(self) -> tuple[float, ...]:
        return self.d1, self.d2, self.d3

    @property
    def _decentering(self) -> tuple[float, ...]:
        return self.p1, self.p2, self.sx, self.sy, self.sx2, self.sy2

    @cached_property
    def _radial(self) -> Radial:
        if self.omega:
            return FieldOfView(self.omega)
        if self.division:
            return Division(self.division)
        if self.alpha:
            return Unified(self.alpha, self.beta)
        return Rational(self._numerator, self._denominator)

    def resized(self, width: int, height: int) -> Lens:
        """Return the lens for a photo of another size [px]; each axis scales by its own ratio."""
        across, down = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=self.cx * across,
            cy=self.cy * down,
            width=width,
            height=height,
        )

    def img_from_cam(self, rays: Array) -> Array:
        """Project points in the camera's frame into the photo.

        Args:
            rays: [N, 3] points, any length > 0. A perspective lens needs z > 0, a fisheye not.

        Returns:
            float64 [N, 2] in px; NaN where a perspective lens gets z <= 0.
        """
        bent = self._bend(self._plane_from_rays(np.asarray(rays, dtype=np.float64)))
        return bent * (self.fx, self.fy) + (self.cx, self.cy)

    def cam_from_img(self, pixels: Array) -> Array:
        """Return the viewing directions of places in the photo: the inverse of `img_from_cam`.

        Newton's method with the exact Jacobian and step halving, until the pixel is met to
        1e-10 px, within the part around the axis where the model is one-to-one.

        Args:
            pixels: [N, 2] in px.

        Returns:
            float64 [N, 3] unit vectors.

        Raises:
            InputError: the model reaches some pixel from no direction.
        """
        pixels = np.asarray(pixels, dtype=np.float64)
        target = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        plane = self._unbend(target)
        if self.fisheye:
            angle = np.linalg.norm(plane, axis=1, keepdims=True)
            # sin(θ)/θ, written so that θ = 0 is nothing special (np.sinc(x) = sin(πx)/(πx)).
            return np.concatenate([plane * np.sinc(angle / np.pi), np.cos(angle)], axis=1)
        rays: Array = np.concatenate([plane, np.ones_like(plane[:, :1])], axis=1)
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        return rays

    def pinhole(self) -> Lens:
        """Return the pinhole that shows the content of this lens's photo, without blank borders.

        It keeps the focal lengths. Its image is a rectangle around the axis that no side can be
        moved out of without leaving the photo, the range where the model is one-to-one, or
        `MAX_TANGENT`.

        Returns:
            A lens with `is_pinhole`; a pinhole gives itself.

        Raises:
            InputError: the axis is not within the photo, or nothing is left.
        """
        if self.is_pinhole:
            return self
        if not (1 <= self.cx <= self.width - 1 and 1 <= self.cy <= self.height - 1):
            raise InputError(
                f"{self.model} camera: the principal point ({self.cx:g}, {self.cy:g}) is outside "
                f"the {self.width}x{self.height} photo; undistort such photos beforehand"
            )
        left, right, top, bottom = _inscribed_rectangle(self._boundary())
        # The first and the last pixel centre of a row; the small number forgives rounding.
        width = math.floor((right - left) * self.fx + 1e-3) + 1
        height = math.floor((bottom - top) * self.fy + 1e-3) + 1
        target = Lens(
            self.fx,
            self.fy,
            0.5 - left * self.fx,
            0.5 - top * self.fy,
            width,
            height,
        )
        return self._trimmed(target)

    def sampling_map(self, target: Lens) -> Array:
        """Return the place in this lens's photo that each pixel centre of a pinhole image shows.

        Args:
            target: the pinhole, in the same pose.

        Returns:
            float32 [target.height, target.width, 2] in px of the photo.
        """
        across = (np.arange(target.width) + 0.5 - target.cx) / target.fx
        down = (np.arange(target.height) + 0.5 - target.cy) / target.fy
        places = np.empty((target.height, target.width, 2), dtype=np.float32)
        rows = max(1, 100_000 // target.width)  # a few rows at a time, to keep memory low
        for start in range(0, target.height, rows):
            part = places[start : start + rows]
            plane = np.stack(np.meshgrid(across, down[start : start + rows]), axis=-1)
            part[:] = self._img_from_plane(plane.reshape(-1, 2)).reshape(part.shape)
        return places

    def _img_from_plane(self, plane: Array) -> Array:
        """Return the pixels [N, 2] of the directions (x, y, 1)."""
        return self.img_from_cam(np.concatenate([plane, np.ones_like(plane[:, :1])], axis=1))

    def _plane_from_rays(self, rays: Array) -> Array:
        """Return q [N, 2] of the rays: tangents, or angles for a fisheye."""
        across, depth = rays[:, :2], rays[:, 2:]
        if not self.fisheye:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(depth > 0, across / depth, np.nan)
        radius = np.linalg.norm(across, axis=1, keepdims=True)
        safe = np.where(radius > 0, radius, 1.0)
        # On the axis θ/radius tends to 1/z; straight behind, the direction is undefined and any do.
        return across * np.where(radius > 0, np.arctan2(radius, depth) / safe, 1.0)

    def _bend(self, plane: Array) -> Array:
        """Return q' [N, 2] of q [N, 2]."""
        bent: Array = plane * self._radial((plane**2).sum(axis=1))[0][:, None]
        if not any(self._decentering):
            return bent
        u, v = (bent if self.terms_of_bent else plane).copy().T
        square, uv = u * u + v * v, u * v
        bent[:, 0] += 2 * self.p1 * uv + self.p2 * (square + 2 * u * u)
        bent[:, 1] += 2 * self.p2 * uv + self.p1 * (square + 2 * v * v)
        bent[:, 0] += square * (self.sx + square * self.sx2)
        bent[:, 1] += square * (self.sy + square * self.sy2)
        return bent

    def _jacobian(self, plane: Array) -> Array:
        """Return dq'/dq [N, 2, 2] (rows q', columns q)."""
        u, v = plane.T
        factor, slope = self._radial(u * u + v * v)
        radial = np.empty((len(plane), 2, 2))
        radial[:, 0, 0] = factor + 2 * slope * u * u
        radial[:, 0, 1] = radial[:, 1, 0] = 2 * slope * u * v
        radial[:, 1, 1] = factor + 2 * slope * v * v
        if not any(self._decentering):
            return radial
        if self.terms_of_bent:
            radial += self._decentering_slope(plane * factor[:, None]) @ radial
        else:
            radial += self._decentering_slope(plane)
        return radial

    def _decentering_slope(self, plane: Array) -> Array:
        """Return the derivative [N, 2, 2] of the tangential and prism terms."""
        u, v = plane.T
        square = u * u + v * v
        across, down = self.sx + 2 * square * self.sx2, self.sy + 2 * square * self.sy2
        shared = self.p1 * u + self.p2 * v
        slope = np.empty((len(plane), 2, 2))
        slope[:, 0, 0] = self.p1 * v + (3 * self.p2 + across) * u
        slope[:, 0, 1] = shared + across * v
        slope[:, 1, 0] = shared + down * u
        slope[:, 1, 1] = self.p2 * u + (3 * self.p1 + down) * v
        return 2 * slope

    def _regular(self, plane: Array) -> Array:
        """Return bool [N]: true if the model is one-to-one from the axis to q = plane [N, 2]."""
        jacobian = self._jacobian(plane)
        # A positive determinant alone would admit the mirrored branch beyond a fold.
        regular: Array = (_determinant(jacobian) > 0) & (jacobian[:, 0, 0] + jacobian[:, 1, 1] > 0)
        regular &= (plane**2).sum(axis=1) < self._radial.fold**2
        return regular

    def _unbend(self, target: Array) -> Array:
        """Return q [N, 2] with q' = target [N, 2], or raise InputError."""
        plane = self._radial.guess(target)
        pixel = np.array([self.fx, self.fy])
        for _ in range(_NEWTON_STEPS):
            error = self._bend(plane) - target
            size = np.abs(error * pixel).max(axis=1)
            wrong = ~(size <= CONVERGED)
            if not wrong.any():
                break
            step = _solve(self._jacobian(plane[wrong]), error[wrong])
            plane[wrong] = self._descend(plane[wrong], step, target[wrong], size[wrong])
        wrong = ~(np.abs((self._bend(plane) - target) * pixel).max(axis=1) <= CONVERGED)
        wrong |= ~self._regular(plane)
        if wrong.any():
            x, y = target[wrong][0] * pixel + (self.cx, self.cy)
            raise InputError(
                f"{self.model} camera: {wrong.sum()} of {len(target)} pixels are seen from no "
                f"direction, the first is ({x:g}, {y:g})"
            )
        return plane

    def _descend(self, plane: Array, step: Array, target: Array, size: Array) -> Array:
        """Take a Newton step from `plane`, halved for each pixel until its error [px] falls."""
        best = plane
        share = np.ones((len(plane), 1))
        for _ in range(20):
            best = plane - share * step
            error = np.abs((self._bend(best) - target) * (self.fx, self.fy)).max(axis=1)
            # A root past a fold of the model is not the one wanted.
            worse = ~self._regular(best) | ~((error < size) | (error <= CONVERGED))
            if not worse.any():
                break
            share[worse] /= 2
        return best

    def _boundary(self) -> Array:
        """Return the border [B, 2] of the usable pinhole plane in B directions around the axis.

        It is the last place outwards from the axis that is within the photo's outermost pixel
        centres, before a fold of the model, and within MAX_TANGENT.
        """
        angles = np.arange(1024) * (2 * np.pi / 1024)
        toward = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        radii = np.linspace(0, MAX_TANGENT * math.sqrt(2), 49)[1:]
        inside = self._usable((toward[:, None] * radii[None, :, None]).reshape(-1, 2))
        inside = inside.reshape(len(toward), len(radii))
        outside = np.where(inside.all(axis=1), len(radii) - 1, np.argmin(inside, axis=1))
        far = radii[outside]
        near = np.where(outside > 0, radii[np.maximum(outside - 1, 0)], 0.0)
        for _ in range(40):
            middle = (near + far) / 2
            good = self._usable(toward * middle[:, None])
            near, far = np.where(good, middle, near), np.where(good, far, middle)
        return toward * near[:, None]

    def _usable(self, plane: Array) -> Array:
        """Return bool [N]: true if the direction (x, y, 1) may appear in the pinhole image."""
        rays = np.concatenate([plane, np.ones_like(plane[:, :1])], axis=1)
        bending = self._plane_from_rays(rays)
        pixels = self._bend(bending) * (self.fx, self.fy) + (self.cx, self.cy)
        size = np.array([self.width, self.height])
        inside = ((pixels >= 0.5 - 1e-6) & (pixels <= size - 0.5 + 1e-6)).all(axis=1)
        usable: Array = inside & self._regular(bending) & (np.abs(plane) <= MAX_TANGENT).all(axis=1)
        return usable

    def _trimmed(self, target: Lens) -> Lens:
        """Return `target` without the outer rows and columns that stick out, pixel by pixel.

        The boundary is known in a thousand directions only; between them a corner may be missed.
        """
        allowed = 0.05  # px beyond the outermost pixel centres: clamping there is invisible
        low, high = 0.5 - allowed, np.array([self.width, self.height]) - 0.5 + allowed
        while target.width > 1 and target.height > 1:
            across = (np.arange(target.width) + 0.5 - target.cx) / target.fx
            down = (np.arange(target.height) + 0.5 - target.cy) / target.fy
            columns = [np.stack([np.full_like(down, x), down], 1) for x in across[[0, -1]]]
            rows = [np.stack([across, np.full_like(across, y)], 1) for y in down[[0, -1]]]
            out = []
            for line in (*columns, *rows):
                pixels = self._img_from_plane(line)
                out.append(int((~((pixels >= low) & (pixels <= high)).all(axis=1)).sum()))
            if not any(out):
                return target
            side = int(np.argmax(out))
            target = replace(
                target,
                cx=target.cx - (side == 0),
                cy=target.cy - (side == 2),
                width=target.width - (side < 2),
                height=target.height - (side >= 2),
            )
        raise InputError(
            f"{self.model} camera: no rectangle of the {self.width}x{self.height} photo can be "
            "undistorted; check its distortion parameters"
        )


def _determinant(matrices: Array) -> Array:
    """Return the determinants [N] of matrices [N, 2, 2]."""
    (a, b), (c, d) = matrices[:, 0].T, matrices[:, 1].T
    determinant: Array = a * d - b * c
    return determinant


def _solve(matrices: Array, rights: Array) -> Array:
    """Solve matrices [N, 2, 2] x = rights [N, 2]; a singular matrix counts as identity."""
    determinant = _determinant(matrices)
    singular = ~(np.abs(determinant) > 1e-12)
    safe = np.where(singular, 1.0, determinant)
    (a, b), (c, d) = matrices[:, 0].T, matrices[:, 1].T
    x = (d * rights[:, 0] - b * rights[:, 1]) / safe
    y = (a * rights[:, 1] - c * rights[:, 0]) / safe
    return np.where(singular[:, None], rights, np.stack([x, y], axis=1))


def _inscribed_rectangle(boundary: Array) -> tuple[float, float, float, float]:
    """Return left, right, top, bottom of a large rectangle around 0, clear of boundary points.

    A box about the origin shrinks until it is free, then each side moves out as far as it may, so
    no side of the result can be moved further. Of boxes of several proportions, the result with
    the largest area is taken.

    Args:
        boundary: [B, 2] points around the origin.
    """
    x, y = boundary[:, 0], boundary[:, 1]
    box = np.array([x.min(), x.max(), y.min(), y.max()])
    best, best_area = box, 0.0
    for stretch in np.geomspace(0.5, 2.0, 129):
        left, right, top, bottom = box * (stretch, stretch, 1 / stretch, 1 / stretch)
        # A point is in the box scaled by s if s exceeds how far out the point is, in box units.
        across, down = np.where(x < 0, x / left, x / right), np.where(y < 0, y / top, y / bottom)
        reach = np.maximum(across, down).min()
        top, bottom = top * reach, bottom * reach
        rows = (y > top) & (y < bottom)
        left = np.max(x[rows & (x < 0)], initial=box[0])
        right = np.min(x[rows & (x > 0)], initial=box[1])
        columns = (x > left) & (x < right)
        top = np.max(y[columns & (y < 0)], initial=box[2])
        bottom = np.min(y[columns & (y > 0)], initial=box[3])
        area = (right - left) * (bottom - top)
        if area > best_area:
            best, best_area = np.array([left, right, top, bottom]), area
    left, right, top, bottom = map(float, best)
    return left, right, top, bottom
