"""torchvision's DataLoader on class folders, for comparison with the example loader_speed: python3 reference/loader_speed.py FOLDER [SIDE [WORKERS]]."""
import sys, time
import torch, torchvision
from torchvision.transforms import v2

folder, side, workers = sys.argv[1], int((sys.argv[2:3] or [224])[0]), int((sys.argv[3:4] or [2])[0])
torch.set_num_threads(1)
transform = v2.Compose([v2.Resize((side, side)), v2.PILToTensor()])
data = torchvision.datasets.ImageFolder(folder, transform)
loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
for epoch in range(3):
    began = time.perf_counter()
    for _ in loader:
        pass
    print(f"torchvision {torchvision.__version__}, {workers} workers: epoch {epoch}, {len(data) / (time.perf_counter() - began):.0f} images/s")
