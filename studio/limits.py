"""How much may be asked of the studio: counts, sizes and ranges."""

MAX_PICTURES = 64  # a draw
MAX_SEED = 2**53 - 1  # the largest whole number that a browser holds exactly
PSI_MAX = 2.0
UPLOAD_MAX_BYTES = 10 * 2**20
UPLOAD_MAX_PIXELS = 4_000_000
SIDE_MIN_PX = 8  # of any result
SIDE_MAX_PX = 4096  # of any result
QUERY_MAX_CHARS = 4_000  # of a link behind its question mark
FRAMES_MAX = 300  # of a film
FPS_MIN, FPS_MAX = 1, 60
SECONDS_MAX = 30.0  # of a film
STEPS_MAX = 20  # pictures of a morph's strip
MAX_CHARACTERS = 9  # that wander in one film
