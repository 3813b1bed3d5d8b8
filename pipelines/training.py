"""Pipeline `finder_training`: from captioned images to a registered model. Composition only."""

from zenml import pipeline
from zenml.enums import ExecutionMode

import image_finder.steps.materializers  # noqa: F401 - registers the materializers; without them ZenML would pickle
from image_finder.components.configs import (
    DatasetConfig,
    DriftConfig,
    EmbeddingConfig,
    EvaluationConfig,
    ExportConfig,
    ModelConfig,
    RegistryConfig,
    SplitConfig,
    TrainingConfig,
    TrainingParameters,
    ValidationConfig,
)
from image_finder.steps.bundle import export_bundle, measure_parity, promote_bundle, register_bundle
from image_finder.steps.captions import ingest_captions, log_data_sets, split_captions, validate_captions
from image_finder.steps.drift import make_drift_reference, measure_drift
from image_finder.steps.dual_encoder import evaluate_retrieval, extract_features, train_dual_encoder
from image_finder.steps.gates import require_no_drift, require_parity, require_quality, require_valid

_DEFAULT = TrainingParameters.model_construct(dataset=DatasetConfig.model_construct(name=""))  # it has no default


@pipeline(name="finder_training", execution_mode=ExecutionMode.FAIL_FAST)
def finder_training(
    dataset: DatasetConfig,
    data_fingerprint: str,
    validation: ValidationConfig = _DEFAULT.validation,
    split: SplitConfig = _DEFAULT.split,
    model: ModelConfig = _DEFAULT.model,
    training: TrainingConfig = _DEFAULT.training,
    evaluation: EvaluationConfig = _DEFAULT.evaluation,
    export: ExportConfig = _DEFAULT.export,
    registry: RegistryConfig = _DEFAULT.registry,
    embedding: EmbeddingConfig = _DEFAULT.embedding,
    drift: DriftConfig = _DEFAULT.drift,
) -> None:
    """From captions to a promoted model; a gate follows each measurement."""
    captions, images, manifest = ingest_captions(dataset, evaluation.parts_of_sets, data_fingerprint)
    validated = validate_captions(captions, images, manifest, validation, model.text)
    require_valid(validated)
    train, val, test, extra = split_captions(captions, images, manifest, validated, split, after=["require_valid"])
    log_data_sets(dataset, manifest, train, val, test, extra)
    drifted = measure_drift(train, manifest, drift, registry, embedding)
    require_no_drift(drifted, drift)
    features = extract_features(
        train,
        val,
        test,
        extra,
        images,
        manifest,
        model,
        embedding,
        augmented_views=training.augmented_views,
        after=["require_no_drift"],
    )
    checkpoint = train_dual_encoder(train, val, images, manifest, features, model, training, embedding)
    report, scores = evaluate_retrieval(checkpoint, val, test, extra, images, manifest, evaluation, embedding)
    require_quality(report, evaluation)
    bundle = export_bundle(checkpoint, scores, train, val, images, manifest, export, after=["require_quality"])
    parity = measure_parity(checkpoint, bundle, val, images, manifest, export)
    require_parity(parity)
    reference = make_drift_reference(
        bundle, train, images, manifest, drift, embedding, after=["require_quality", "require_parity"]
    )
    parameters = TrainingParameters(
        dataset=dataset,
        validation=validation,
        split=split,
        model=model,
        training=training,
        evaluation=evaluation,
        export=export,
        registry=registry,
        embedding=embedding,
        drift=drift,
    )
    registered = register_bundle(
        bundle,
        report,
        parity,
        validated,
        manifest,
        reference,
        parameters,
        data_fingerprint,
        after=["require_quality", "require_parity"],
    )
    promote_bundle(registered, bundle, validated, parity, val, test, extra, images, manifest, evaluation, registry)
