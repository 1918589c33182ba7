"""torch.export writes a structured trace to any listening logger; pytest listens to all of them."""

import logging

logging.getLogger("torch").setLevel(logging.ERROR)
logging.getLogger("torch.__trace").disabled = True
