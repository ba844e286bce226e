"""The word lists of the world. Every name and value is one token, so that contexts stay short."""

# ruff: noqa: SIM905 - long word lists read better as text

import hashlib
import random

_ONSETS = "b br d dr f fl g gr h j k kl l m n p pr r s sk st t tr v w z".split()
_VOWELS = "a e i o u ai ea io".split()


def seeded(*names: object) -> random.Random:
    """A private generator named by `names`: no global state, the same stream on every machine."""
    digest = hashlib.sha256("|".join(map(str, ("nano", *names))).encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))


def _invented(kind: str, endings: str, count: int) -> list[str]:
    """`count` different invented names; the ending tells the kind, so no name belongs to two kinds."""
    rng, tails, found = seeded("names", kind), endings.split(), []
    while len(found) < count:
        name = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(tails)).capitalize()
        if name not in found:
            found.append(name)
    return found


SHE_NAMES = _invented("she", "lla nna ssa dia", 48)
HE_NAMES = _invented("he", "rik mon vin dus", 48)
LAST_NAMES = _invented("last", "rley shaw nthorpe cker wood", 96)
CITIES = _invented("city", "mouth burg polis grad", 48)
FIRMS = _invented("firm", "tek corp dyne works", 40)
COUNTRIES = _invented("country", "stan landia", 12)
RIVERS = _invented("river", "bourne flow", 24)
JOBS = (
    "baker carpenter surgeon lawyer painter plumber tailor barber farmer miner sailor pilot dentist nurse "
    "teacher writer editor printer butcher gardener weaver potter jeweller driver welder mason roofer "
    "chemist geologist botanist librarian translator accountant banker judge locksmith glazier brewer "
    "cook diver"
).split()
INSTRUMENTS = (
    "harp flute violin cello oboe trumpet guitar banjo lute drum tuba organ clarinet mandolin accordion "
    "bassoon horn fiddle zither sitar trombone piano viola lyre"
).split()
ANIMALS = (
    "otter ferret parrot rabbit hamster turtle lizard gecko canary pigeon goose donkey pony goat llama "
    "hedgehog tortoise beagle poodle kitten snake toad newt falcon"
).split()
YEARS = [str(year) for year in range(1920, 1980)]
ADJECTIVES = "old quiet narrow bright cold wooden broken empty green grey heavy famous little long".split()
NOUNS = (
    "bridge market garden tower road hill harbour mill field lamp wall gate square church forest boat cart "
    "bench clock fountain"
).split()
VERBS = "stood waited leaned rested shone creaked changed grew".split()
TIMES = "morning evening winter summer autumn spring night day".split()
WEATHER = "rain snow wind fog sun frost hail mist".split()
