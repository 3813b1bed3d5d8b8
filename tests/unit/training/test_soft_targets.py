"""Soft targets: the losses towards fixed models, by hand, by share, and in a training."""

import pytest
import torch
from torch.nn import functional

from image_finder.components.configs import EmbeddingConfig, ExportConfig, ModelConfig, TrainingConfig
from image_finder.components.errors import BundleError
from image_finder.components.export.exporter import export_bundle
from image_finder.components.training import trainer
from image_finder.components.training.soft_targets import Teacher, distillation_share
from image_finder.components.training.teachers import taught_by
from image_finder.components.training.trainer import FeatureSettings, TrainingTask, checkpoint_vectors, train_checkpoint
from tests.support.tiny_bundle import score_calibration


def _units(*shape, seed):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def _whole(n_images, n_texts):
    return slice(0, n_images), slice(0, n_texts)


def test_a_student_that_agrees_with_its_teacher_has_no_loss():
    images, texts = _units(4, 8, seed=0), _units(9, 8, seed=1)
    teacher = Teacher(3 * images, 2 * texts)
    same = distillation_share(torch.tensor(6.0), (images, texts), teacher, _whole(4, 9))
    other = distillation_share(torch.tensor(7.0), (images, texts), teacher, _whole(4, 9))
    assert float(same) == pytest.approx(0, abs=1e-6)
    assert float(other) > 1e-4


def test_the_loss_is_the_mean_divergence_of_both_directions():
    images, texts = _units(2, 4, seed=0), _units(3, 4, seed=1)
    teacher = Teacher(_units(2, 5, seed=2), _units(3, 5, seed=3))
    student, wanted = (5 * images @ texts.t()).double(), (teacher.images @ teacher.texts.t()).double()

    def divergence(p, q):
        return (p * (p / q).log()).sum(dim=1).mean()

    by_text = divergence(wanted.t().softmax(dim=1), student.t().softmax(dim=1))
    by_image = divergence(wanted.softmax(dim=1), student.softmax(dim=1))
    found = distillation_share(torch.tensor(5.0), (images, texts), teacher, _whole(2, 3))
    assert float(found) == pytest.approx(float((by_text + by_image) / 2), rel=1e-4)


def test_shares_add_up_to_the_loss_of_the_batch():
    vectors = _units(5, 8, seed=0), _units(7, 8, seed=1)
    teacher = Teacher(4 * _units(5, 6, seed=2), 4 * _units(7, 6, seed=3))
    whole = distillation_share(torch.tensor(9.0), vectors, teacher, _whole(5, 7))
    shares = [
        distillation_share(torch.tensor(9.0), vectors, teacher, rows)
        for rows in ((slice(0, 2), slice(0, 3)), (slice(2, 5), slice(3, 7)))
    ]
    torch.testing.assert_close(sum(shares), whole)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return FeatureSettings(tmp_path_factory.mktemp("cache"), EmbeddingConfig(device="cpu", batch_images=8))


def _fitted(scenes, model, settings, path, **values):
    training = TrainingConfig.parse({"epochs": 2, "batch_images": 9, "device": "cpu", "trunk_rate": 0.01, **values})
    return train_checkpoint(TrainingTask(scenes, scenes, (model, training), settings, path, ("scenes", "v1")))


@pytest.fixture(scope="module")
def teachers(scenes, tiny_model, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    model = ModelConfig.parse(tiny_model)
    return [
        export_bundle(
            _fitted(scenes, model, settings, folder / f"c{seed}", seed=seed),
            folder / f"b{seed}",
            ExportConfig(),
            scores=score_calibration(),
        )
        for seed in (5, 6)
    ]


def test_a_teacher_is_the_mean_of_its_bundles_scaled_similarities(scenes, tiny_model, settings, teachers, tmp_path):
    taught = taught_by(teachers, scenes, settings.embedding, tmp_path, progress=False)
    again = taught_by(teachers, scenes, settings.embedding, tmp_path, progress=False)
    assert torch.equal(taught.images, again.images)
    single = [taught_by([each], scenes, settings.embedding, tmp_path, progress=False) for each in teachers]
    mean = sum(each.images @ each.texts.t() for each in single) / 2
    torch.testing.assert_close(taught.images @ taught.texts.t(), mean, atol=1e-4, rtol=1e-4)
    assert float(single[0].images.norm(dim=1).max()) == pytest.approx(teachers[0].scores().logit_scale ** 0.5, rel=1e-4)


def test_a_student_comes_nearer_to_its_teacher(scenes, tiny_model, settings, teachers, tmp_path):
    taught = taught_by(teachers, scenes, settings.embedding, settings.cache_dir, progress=False)
    model = ModelConfig.parse(tiny_model)
    divergence = []
    for name, values in (
        ("alone", {}),
        ("taught", {"teacher": [each.path for each in teachers], "teacher_weight": 1.0}),
    ):
        checkpoint = _fitted(scenes, model, settings, tmp_path / name, epochs=8, head_rate=0.01, **values)
        images, texts = checkpoint_vectors(checkpoint, scenes, settings, device="cpu")
        vectors = torch.from_numpy(images), torch.from_numpy(texts)
        rows = slice(0, len(vectors[0])), slice(0, len(vectors[1]))
        divergence.append(float(distillation_share(torch.tensor(checkpoint.logit_scale), vectors, taught, rows)))
    assert divergence[1] < 0.5 * divergence[0]


def test_another_teacher_makes_another_training(scenes, tiny_model, teachers):
    configs = ModelConfig.parse(tiny_model), TrainingConfig()
    identities = {trainer._identity(scenes, scenes, configs, each) for each in ([], teachers[:1], teachers)}
    assert len(identities) == 3


def test_a_teacher_that_is_no_bundle_stops_the_training_before_it_starts(scenes, tiny_model, settings, tmp_path):
    with pytest.raises(BundleError, match=str(tmp_path / "absent")):
        _fitted(scenes, ModelConfig.parse(tiny_model), settings, tmp_path / "c", teacher=[tmp_path / "absent"])
    assert not (tmp_path / "c").exists()
