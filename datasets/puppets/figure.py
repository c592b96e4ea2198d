"""Draws a puppet part by part, from the parts at the back to those in front."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.puppets.canvas import Canvas, Place
from datasets.puppets.colour import Colour, mix
from datasets.puppets.identity import Fabric, Identity
from datasets.puppets.pose import Pose
from datasets.puppets.shapes import Cap, Ellipse, Limb, Smile, Trapezoid

_WHITE: Colour = (1.0, 1.0, 1.0)
_INK: Colour = (0.13, 0.09, 0.12)
_MOUTH: Colour = (0.45, 0.1, 0.13)
_TONGUE: Colour = (0.93, 0.45, 0.45)


class Figure(NamedTuple):
    """A puppet without background; `colour` is premultiplied by `foreground_mask`."""

    colour: NDArray[np.float32]  # H x W x 3 in [0, 1]
    foreground_mask: NDArray[np.float32]  # H x W in [0, 1], the share of the pixel it covers


def draw_figure(identity: Identity, pose: Pose, size: tuple[int, int]) -> Figure:
    """Draw the puppet alone, in a frame of `size` (height, width)."""
    canvas = Canvas(size)
    paint_figure(canvas, identity, pose)
    return Figure(np.ascontiguousarray(canvas.colour.transpose(1, 2, 0)), canvas.coverage)


def paint_figure(canvas: Canvas, identity: Identity, pose: Pose) -> None:
    """Paint the parts of the puppet on a canvas: of an identity always as many, in one order."""
    build, trunk = identity.build, _trunk(identity)
    hips, torso, head = _places(identity, pose, canvas.size)

    _arm(canvas, torso, identity, 1, pose.right_shoulder, pose.right_elbow)
    if identity.headgear == "long_hair":
        _long_hair(canvas, head, identity)
    _leg(canvas, hips, identity, -1, pose.left_hip, pose.left_knee)
    _leg(canvas, hips, identity, 1, pose.right_hip, pose.right_knee)
    _torso(canvas, torso, trunk, identity)
    skull = head.at(0, -build.head_height / 2)
    _ears(canvas, skull, identity)
    _head(canvas, skull, identity, pose.head_turn)
    _headgear(canvas, skull, identity)
    _arm(canvas, torso, identity, -1, pose.left_shoulder, pose.left_elbow)


def find_joints(
    identity: Identity, pose: Pose, size: tuple[int, int]
) -> dict[str, tuple[float, float]]:
    """Find the joints of the puppet in a frame of `size` (height, width).

    Returns:
        Position (x, y) in pixels, by name; left is the left of the picture. A joint may be hidden,
        or outside of the frame.
    """
    build, trunk = identity.build, _trunk(identity)
    hips, torso, head = _places(identity, pose, size)
    found = {
        "hips": hips.pixel(0, 0),
        "neck": torso.pixel(0, -trunk),
        "head": head.pixel(0, -build.head_height / 2),
    }
    for name, side, shoulder, elbow in (
        ("left", -1, pose.left_shoulder, pose.left_elbow),
        ("right", 1, pose.right_shoulder, pose.right_elbow),
    ):
        limb = _arm_limb(identity, side, shoulder, elbow)
        found[f"{name} elbow"], found[f"{name} hand"] = (
            torso.pixel(*limb.joint),
            torso.pixel(*limb.tip),
        )
    for name, side, hip, knee in (
        ("left", -1, pose.left_hip, pose.left_knee),
        ("right", 1, pose.right_hip, pose.right_knee),
    ):
        limb = _leg_limb(identity, side, hip, knee)
        found[f"{name} knee"], found[f"{name} foot"] = (
            hips.pixel(*limb.joint),
            hips.pixel(*limb.tip),
        )
    return found


def _trunk(identity: Identity) -> float:
    """Length from the hips to the neck, in figure heights."""
    return 1 - identity.build.leg - identity.build.head_height


def _places(identity: Identity, pose: Pose, size: tuple[int, int]) -> tuple[Place, Place, Place]:
    """The places of hips, torso and head, from which the parts are drawn."""
    height, width = size
    side = min(size)
    middle = Place(
        x=width / 2 + pose.x * side,
        y=height / 2 + pose.y * side,
        cos=math.cos(pose.rotation),
        sin=math.sin(pose.rotation),
        scale=pose.scale * side,
    )
    hips = middle.at(0, 0.5 - identity.build.leg)
    torso = hips.at(0, 0, pose.lean)
    return hips, torso, torso.at(0, -_trunk(identity), pose.head_tilt)


def _plain(colour: Colour) -> Fabric:
    return Fabric(colour, colour)


def _arm(
    canvas: Canvas,
    torso: Place,
    identity: Identity,
    side: int,
    shoulder: float,
    elbow: float,
) -> None:
    """Draw the arm on the left of the picture for `side` -1, the right one for 1."""
    build, clothes = identity.build, identity.clothes
    limb = _arm_limb(identity, side, shoulder, elbow)
    hand = torso.at(*limb.tip)
    canvas.paint(torso, limb, clothes.top, clothes.sleeve * build.arm, _plain(identity.face.skin))
    canvas.paint(hand, Ellipse(build.hand, build.hand), _plain(clothes.hands))


def _leg(
    canvas: Canvas, hips: Place, identity: Identity, side: int, hip: float, knee: float
) -> None:
    build, clothes = identity.build, identity.clothes
    limb = _leg_limb(identity, side, hip, knee)
    canvas.paint(hips, limb, clothes.bottom, clothes.leg * build.leg, _plain(identity.face.skin))
    # The foot turns with the shin, but less, as if it tried to stay flat on the ground.
    foot = hips.at(*limb.tip, -side * 0.6 * (hip + knee)).at(side * 0.3 * build.foot, 0.01)
    canvas.paint(foot, Ellipse(build.foot, 0.66 * build.foot, 2.5), _plain(clothes.shoes))


def _arm_limb(identity: Identity, side: int, shoulder: float, elbow: float) -> Limb:
    """The bones of an arm, at the place of the torso."""
    build = identity.build
    return _limb(
        root=(side * (build.torso_top - 0.01), 0.055 - _trunk(identity)),
        side=side,
        angles=(shoulder, shoulder + elbow),
        length=build.arm,
        radii=(build.arm_radius * 1.08, build.arm_radius, build.arm_radius * 0.88),
    )


def _leg_limb(identity: Identity, side: int, hip: float, knee: float) -> Limb:
    """The bones of a leg, at the place of the hips."""
    build = identity.build
    ankle_height = 0.6 * build.foot
    return _limb(
        root=(side * 0.5 * build.torso_bottom, -0.02),
        side=side,
        angles=(hip, hip + knee),
        length=build.leg - ankle_height + 0.02,
        radii=(build.leg_radius * 1.1, build.leg_radius, build.leg_radius * 0.9),
    )


def _limb(
    root: tuple[float, float],
    side: int,
    angles: tuple[float, float],
    length: float,
    radii: tuple[float, float, float],
) -> Limb:
    """Make a limb of two equally long bones.

    `angles` are those of the bones against straight down, positive outwards.
    """
    upper, lower = angles
    bone = length / 2
    joint = root[0] + side * bone * math.sin(upper), root[1] + bone * math.cos(upper)
    tip = joint[0] + side * bone * math.sin(lower), joint[1] + bone * math.cos(lower)
    return Limb(root, joint, tip, *radii)


def _torso(canvas: Canvas, torso: Place, trunk: float, identity: Identity) -> None:
    build, clothes = identity.build, identity.clothes
    radius = 0.08
    overlap = 0.05  # behind the head, and over the legs
    height = trunk / 2 + overlap
    chest = torso.at(0, -trunk / 2)
    shape = Trapezoid(
        build.torso_top - radius + 0.03, build.torso_bottom - radius + 0.03, height - radius, radius
    )
    if clothes.outfit == "shirt":
        canvas.paint(chest, shape, clothes.top, 0.36 * trunk, clothes.bottom)
        return
    canvas.paint(chest, shape, clothes.top)
    if clothes.outfit == "plush":
        canvas.draw(
            chest.at(0, 0.04),
            Ellipse(0.68 * build.torso_bottom, 0.75 * height),
            mix(clothes.top.colour, _WHITE, 0.55),
        )


def _ears(canvas: Canvas, skull: Place, identity: Identity) -> None:
    width, height = identity.build.head_width / 2, identity.build.head_height / 2
    skin = identity.face.skin
    inner = mix(skin, (1.0, 0.62, 0.62), 0.5)
    for side in (-1, 1):
        if identity.ears == "human":
            canvas.paint(skull.at(side * width, 0.1 * height), Ellipse(0.045, 0.055), _plain(skin))
        elif identity.ears == "bear":
            ear = skull.at(side * 0.72 * width, -0.78 * height)
            canvas.paint(ear, Ellipse(0.085, 0.085), _plain(skin))
            canvas.draw(ear, Ellipse(0.05, 0.05), inner)
        elif identity.ears == "cat":
            ear = skull.at(side * 0.66 * width, -0.86 * height, side * 0.42)
            canvas.paint(ear, Trapezoid(0.0, 0.075, 0.07, 0.022), _plain(skin))
            canvas.draw(ear.at(0, 0.012), Trapezoid(0.0, 0.045, 0.045, 0.012), inner)
        else:
            ear = skull.at(side * 0.5 * width, -1.12 * height, side * 0.2)
            canvas.paint(ear, Ellipse(0.06, 0.14), _plain(skin))
            canvas.draw(ear, Ellipse(0.032, 0.1), inner)


def _head(canvas: Canvas, skull: Place, identity: Identity, turn: float) -> None:
    build, face = identity.build, identity.face
    width, height = build.head_width / 2, build.head_height / 2
    canvas.paint(skull, Ellipse(width, height, build.head_power), _plain(face.skin))
    unit = build.head_height
    look = skull.at(0.13 * turn * width, 0)  # the face slides over the head as it turns
    for side in (-1, 1):
        cheek = look.at(side * (face.eye_distance + 0.1) * unit, 0.16 * unit)
        canvas.draw(cheek, Ellipse(0.085 * unit, 0.06 * unit), face.cheeks, 0.8)
    if face.muzzle:
        canvas.draw(
            look.at(0.02 * turn, 0.2 * unit),
            Ellipse(0.22 * unit, 0.17 * unit),
            mix(face.skin, _WHITE, 0.55),
        )
        canvas.draw(look.at(0.03 * turn, 0.11 * unit), Ellipse(0.065 * unit, 0.045 * unit), _INK)
    _mouth(canvas, look.at(0.02 * turn, (0.2 if face.muzzle else 0.16) * unit), identity)
    for side in (-1, 1):
        _eye(
            canvas,
            look.at(side * face.eye_distance * unit, -face.eye_height * unit),
            identity,
            turn,
        )


def _mouth(canvas: Canvas, place: Place, identity: Identity) -> None:
    unit = identity.build.head_height
    if identity.face.mouth == "smile":
        canvas.draw(place.at(0, -0.06 * unit), Smile(0.13 * unit, 0.85, 0.016 * unit), _INK)
        return
    # The mouth is a cap upside down, straight above and round below.
    jaw = place.at(0, 0, math.pi)
    canvas.draw(jaw, Cap(Ellipse(0.1 * unit, 0.12 * unit), 0.0, 0.0), _MOUTH)
    canvas.draw(jaw.at(0, -0.085 * unit), Ellipse(0.055 * unit, 0.03 * unit), _TONGUE)


def _eye(canvas: Canvas, place: Place, identity: Identity, turn: float) -> None:
    face = identity.face
    size = face.eye_size * identity.build.head_height
    if face.eyes == "button":
        canvas.draw(place, Ellipse(0.85 * size, 1.1 * size), _INK)
        canvas.draw(place.at(-0.25 * size, -0.4 * size), Ellipse(0.3 * size, 0.3 * size), _WHITE)
        return
    canvas.draw(place, Ellipse(1.2 * size, 1.35 * size), _INK)
    canvas.draw(place, Ellipse(1.05 * size, 1.2 * size), _WHITE)
    pupil = place.at(0.3 * turn * size, 0.1 * size)
    canvas.draw(pupil, Ellipse(0.7 * size, 0.8 * size), face.iris)
    canvas.draw(pupil, Ellipse(0.45 * size, 0.52 * size), _INK)
    canvas.draw(pupil.at(-0.25 * size, -0.3 * size), Ellipse(0.24 * size, 0.24 * size), _WHITE)


def _long_hair(canvas: Canvas, head: Place, identity: Identity) -> None:
    build = identity.build
    canvas.paint(
        head.at(0, -0.38 * build.head_height),
        Ellipse(0.58 * build.head_width, 0.72 * build.head_height, 3.0),
        _plain(identity.hair),
    )


def _headgear(canvas: Canvas, skull: Place, identity: Identity) -> None:
    build, hat = identity.build, identity.hat
    width, height = build.head_width / 2, build.head_height / 2
    hair = _plain(identity.hair)
    trim = _plain(hat.accent)
    crown = Ellipse(1.05 * width, 1.05 * height, build.head_power)
    if identity.ears == "human":
        if identity.headgear == "bun":
            canvas.paint(skull.at(0, -1.12 * height), Ellipse(0.09, 0.08), hair)
        canvas.paint(skull, Cap(crown, -0.5 * height, 0.62 * height), hair)
    if identity.headgear == "beanie":
        canvas.paint(skull.at(0, -1.22 * height), Ellipse(0.055, 0.055), trim)
        cap = Ellipse(1.1 * width, 1.14 * height, build.head_power)
        canvas.paint(skull, Cap(cap, -0.4 * height, 0.0), hat)
        canvas.paint(
            skull.at(0, -0.42 * height), Trapezoid(width - 0.01, width - 0.01, 0.005, 0.032), trim
        )
    elif identity.headgear == "party_hat":
        place = skull.at(0, -1.28 * height)
        canvas.paint(place, Trapezoid(0.0, 0.1, 0.085, 0.012), hat)
        canvas.paint(place.at(0, -0.1), Ellipse(0.035, 0.035), trim)
    elif identity.headgear == "top_hat":
        place = skull.at(0, -1.2 * height)
        canvas.paint(place, Trapezoid(0.115, 0.095, 0.06, 0.015), hat)
        canvas.paint(place.at(0, 0.065), Trapezoid(0.17, 0.17, 0.001, 0.022), hat)
    elif identity.headgear == "bow":
        place = skull.at(0.45 * width, -0.88 * height, 0.35)
        for side in (-1, 1):
            wing = place.at(side * 0.055, 0, side * math.pi / 2)
            canvas.paint(wing, Trapezoid(0.035, 0.01, 0.035, 0.022), hat)
        canvas.paint(place, Ellipse(0.03, 0.03), trim)
