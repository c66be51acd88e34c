"""A user's own script, started by test_ddp.py: ptune's modules in a plain `L.Trainer`.

python tests/plain_training.py BACKBONE DATA OUT DEVICES BATCH_SIZE
"""

import sys

import lightning as L

import ptune


def train(backbone: str, data: str, out: str, devices: int, batch_size: int) -> dict[str, float]:
    """Fine-tunes, validates; the validation metrics."""
    L.seed_everything(11)
    module = ptune.Classification("toy/pair", backbone, path=data, batch_size=batch_size)
    model = ptune.FineTuning(
        backbone=backbone, head=module.head, lr=1e-3, head_dropout=0, backbone_dropout=False, schedule="constant"
    )
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", devices=devices, num_sanity_val_steps=0, **quiet)
    trainer.fit(model, module)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        model.save_prompts(out)
        print("METRICS", metrics, "WORLD", trainer.world_size)
    return metrics


if __name__ == "__main__":
    train(*sys.argv[1:4], *map(int, sys.argv[4:6]))
