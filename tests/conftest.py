"""What several tests share. One thread: two on a busy machine wait for each other more than they compute."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
