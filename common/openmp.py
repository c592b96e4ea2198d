"""To be imported before torch: how the threads of its operations wait for each other.

By default they wait busily. On a machine that has other work too, the thread that is waited for may
not even be running, and every operation takes many times as long. Threads that sleep take 1 to 3%
longer on a quiet machine. The environment's own setting wins.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
