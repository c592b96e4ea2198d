"""Makes torch's threads sleep while they wait for each other. Import this before torch.

By default they wait in a busy loop. On a machine that has other work too, the thread that they wait
for may not even be running, and every operation takes many times as long. On a quiet machine
sleeping threads cost 1 to 3%. A value that the environment sets is kept.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
