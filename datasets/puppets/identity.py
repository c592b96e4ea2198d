"""The identity of a puppet, which stays the same in its clips: proportions, clothes and face."""

from typing import Literal, NamedTuple

import numpy as np

from datasets.puppets.colour import Colour, choose, mix, oklch, uniform

Pattern = Literal["plain", "stripes", "dots", "checks", "gingham", "zigzag"]
Ears = Literal["human", "bear", "cat", "bunny"]
Headgear = Literal["none", "fringe", "long_hair", "bun", "beanie", "party_hat", "top_hat", "bow"]
Outfit = Literal["shirt", "dress", "plush"]


class Fabric(NamedTuple):
    """A coloured pattern; `period` is its size in figure heights."""

    colour: Colour
    accent: Colour
    pattern: Pattern = "plain"
    period: float = 0.1


class Build(NamedTuple):
    """Proportions in figure heights, from the soles to the top of the head without hair or ears."""

    head_height: float
    head_width: float
    head_power: float  # 2 for an ellipse; 4 is nearly a rounded square
    torso_top: float  # half of the width
    torso_bottom: float  # half of the width
    leg: float  # from hip to sole
    leg_radius: float
    arm: float  # from shoulder to wrist
    arm_radius: float
    hand: float  # radius
    foot: float  # radius


class Clothes(NamedTuple):
    outfit: Outfit
    top: Fabric
    bottom: Fabric
    shoes: Colour
    hands: Colour  # skin, or gloves
    sleeve: float  # share of the arm that the sleeve covers
    leg: float  # share of the leg that the bottom covers


class Face(NamedTuple):
    skin: Colour
    iris: Colour
    cheeks: Colour
    eyes: Literal["button", "round"]
    eye_size: float  # radius, in head heights
    eye_distance: float  # half of it, in head heights
    eye_height: float  # above the head's middle, in head heights
    mouth: Literal["smile", "open"]
    muzzle: bool


class Identity(NamedTuple):
    """Everything about a puppet that its pose does not change."""

    build: Build
    clothes: Clothes
    face: Face
    ears: Ears
    headgear: Headgear
    hair: Colour
    hat: Fabric


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draw a random puppet: a child with hair or a hat, or an animal, in matching colours."""
    animal = rng.random() < 0.45
    hue = uniform(rng, 0, 1)
    harmony = choose(rng, (0.08, 0.33, 0.42, 0.5))  # analogous, triadic, split, complementary
    skin = _fur(rng, hue + harmony) if animal else _skin(rng)
    clothes = _clothes(rng, hue, hue + harmony, skin, animal)
    headgear: Headgear = choose(
        rng,
        ("none", "none", "party_hat", "bow", "top_hat")
        if animal
        else ("fringe", "fringe", "long_hair", "bun", "beanie", "party_hat", "top_hat"),
    )
    return Identity(
        build=_build(rng, clothes.outfit),
        clothes=clothes,
        face=_face(rng, skin, animal),
        ears=choose(rng, ("bear", "cat", "bunny")) if animal else "human",
        headgear=headgear,
        hair=_hair(rng),
        hat=_fabric(rng, oklch(0.62, 0.16, hue - harmony), oklch(0.9, 0.08, hue)),
    )


def _build(rng: np.random.Generator, outfit: Outfit) -> Build:
    head_height = uniform(rng, 0.36, 0.43)
    torso_top = uniform(rng, 0.11, 0.15)
    return Build(
        head_height=head_height,
        head_width=head_height * uniform(rng, 1.05, 1.25),
        head_power=uniform(rng, 2.0, 3.2),
        torso_top=torso_top,
        torso_bottom=uniform(rng, 0.2, 0.24) if outfit == "dress" else uniform(rng, 0.13, 0.18),
        leg=uniform(rng, 0.29, 0.34),
        leg_radius=uniform(rng, 0.066, 0.082),
        arm=uniform(rng, 0.27, 0.32),
        arm_radius=uniform(rng, 0.056, 0.068),
        hand=uniform(rng, 0.066, 0.08),
        foot=uniform(rng, 0.085, 0.105),
    )


def _clothes(
    rng: np.random.Generator, hue: float, other_hue: float, skin: Colour, animal: bool
) -> Clothes:
    outfit: Outfit = choose(
        rng, ("plush", "plush", "shirt", "dress") if animal else ("shirt", "shirt", "dress")
    )
    if outfit == "plush":
        fur = _fabric(rng, skin, mix(skin, (1.0, 1.0, 1.0), 0.35), plain=0.5)
        return Clothes(
            outfit, fur, fur, mix(skin, (0.1, 0.05, 0.1), 0.35), mix(skin, (1, 1, 1), 0.2), 1.0, 1.0
        )
    light = uniform(rng, 0.62, 0.82)
    top = _fabric(rng, oklch(light, 0.15, hue), oklch(0.95, 0.04, other_hue), plain=0.15)
    bottom = _fabric(
        rng, oklch(uniform(rng, 0.36, 0.52), 0.1, other_hue), oklch(0.72, 0.08, hue), plain=0.6
    )
    return Clothes(
        outfit=outfit,
        top=top,
        bottom=bottom,
        shoes=oklch(uniform(rng, 0.35, 0.7), 0.15, hue + 0.5),
        hands=skin if rng.random() < 0.75 else (0.97, 0.96, 0.93),
        sleeve=choose(rng, (0.45, 1.0)),
        leg=0.0 if outfit == "dress" else choose(rng, (0.5, 1.0, 1.0)),
    )


def _face(rng: np.random.Generator, skin: Colour, animal: bool) -> Face:
    return Face(
        skin=skin,
        iris=oklch(uniform(rng, 0.3, 0.5), 0.1, uniform(rng, 0, 1)),
        cheeks=mix(skin, (0.98, 0.42, 0.42), 0.42),
        eyes=choose(rng, ("button", "round")),
        eye_size=uniform(rng, 0.085, 0.12),
        eye_distance=uniform(rng, 0.2, 0.26),
        eye_height=uniform(rng, -0.06, 0.02),
        mouth=choose(rng, ("smile", "open")),
        muzzle=animal and rng.random() < 0.8,
    )


def _fabric(rng: np.random.Generator, colour: Colour, accent: Colour, plain: float = 0.3) -> Fabric:
    patterns: tuple[Pattern, ...] = ("stripes", "stripes", "dots", "checks", "gingham", "zigzag")
    pattern: Pattern = "plain" if rng.random() < plain else choose(rng, patterns)
    return Fabric(colour, accent, pattern, uniform(rng, 0.095, 0.135))


def _skin(rng: np.random.Generator) -> Colour:
    depth = uniform(rng, 0, 1)
    return oklch(0.91 - 0.41 * depth, 0.06 + 0.035 * depth, uniform(rng, 0.12, 0.16))


def _fur(rng: np.random.Generator, hue: float) -> Colour:
    if rng.random() < 0.5:
        return oklch(uniform(rng, 0.5, 0.85), uniform(rng, 0.03, 0.1), uniform(rng, 0.13, 0.2))
    return oklch(uniform(rng, 0.62, 0.82), uniform(rng, 0.08, 0.14), hue)


def _hair(rng: np.random.Generator) -> Colour:
    """Draw a hair colour: dark to brown, blond, or dyed."""
    dark = oklch(uniform(rng, 0.22, 0.45), uniform(rng, 0.02, 0.08), uniform(rng, 0.08, 0.18))
    blond = oklch(uniform(rng, 0.72, 0.85), 0.12, uniform(rng, 0.2, 0.26))
    dyed = oklch(0.6, 0.17, uniform(rng, 0, 1))
    return choose(rng, (dark, dark, dark, blond, dyed))
