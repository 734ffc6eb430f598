"""Tables of figures: what was measured, its median and range, and whether it is within its bound."""

import os
import statistics


class Figures:
    """Prints rows, and remembers whether all bounds held."""

    def __init__(self, title):
        self.held = True
        print(f"\n{title}", flush=True)

    def row(self, what, values, unit, least=None, most=None):
        """The median of some values. With `least` or `most` it must be within that."""
        middle = statistics.median(values)
        within = (least is None or middle >= least) and (most is None or middle <= most)
        self.held &= within
        bounds = [f"at least {least}"] * (least is not None) + [f"at most {most}"] * (most is not None)
        told = f"   {', '.join(bounds)}: {'holds' if within else 'MISSED'}" if bounds else ""
        several = f" ({min(values):.2f} to {max(values):.2f} of {len(values)})" if len(values) > 1 else ""
        print(f"  {what:<46} {middle:9.2f} {unit}{several}{told}", flush=True)

    def say(self, words):
        print(f"  {words}", flush=True)

    def skip(self, why):
        """Nothing was measured, which is no bound that was missed."""
        self.say(f"skipped: {why}")


def random_file(folder, mebibytes, name="random"):
    """A file of random bytes."""
    path = folder / f"{name}-{mebibytes}"
    with open(path, "wb") as out:
        for _ in range(mebibytes):
            out.write(os.urandom(1 << 20))
    return path


def warm(folder, mebibytes):
    """Writes so much and takes it away. A page that a virtual machine uses for the first time since its host took it costs
    several times what writing it does: whoever comes next gets pages that were in use a moment ago."""
    path = folder / f"casd-carry-warm-{os.getpid()}"
    try:
        with open(path, "wb") as out:
            piece = bytes(1 << 20)
            for _ in range(mebibytes):
                out.write(piece)
            os.fsync(out.fileno())
    finally:
        path.unlink(missing_ok=True)
