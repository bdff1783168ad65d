"""This project: two pipelines that recognise handwritten digits, with the same containers, and an inbox."""

from typing import Any

from dagster import Definitions, graph

from bonseyes_dagster import Pipeline, PipelineParameter, Task, concurrent_executor, inbox_sensor, tool_op

import_archives = tool_op("import", name="import_archives")
processing = tool_op("processing")
export = tool_op("export")
split = tool_op("training-set", name="split")
train = tool_op("training", name="train")
benchmark = tool_op("benchmarking", name="benchmark")


@graph
def digits() -> Any:
    """From four archives to a benchmarked model."""
    training_samples = processing.alias("process_train")(dataset=import_archives.alias("import_train")())
    test_samples = processing.alias("process_test")(dataset=import_archives.alias("import_test")())
    training_set = split(tensors=export.alias("export_train")(dataset=training_samples))
    model = train(training_set=training_set)
    return benchmark(model=model, tensors=export.alias("export_test")(dataset=test_samples))


task = Task(
    name="handwritten-digits",
    description="Tell which of the ten digits a small grey image of a handwritten character shows.",
    output="A model that gives one of the classes 0 to 9 for an image, with a score for each.",
    constraints=(
        {
            "name": "small",
            "metric": "model_size_bytes",
            "maximum": 2_000_000,
            "description": "The model fits beside the firmware of a microcontroller board with 2 MB of flash.",
        },
        {
            "name": "fast",
            "metric": "latency_ms",
            "maximum": 20,
            "description": "One image is recognised within a frame of a camera with 50 frames a second.",
        },
    ),
    archives={
        "train-images": "Images to learn from: IDX, grey, optionally compressed with gzip.",
        "train-labels": "The digit that each of them shows: IDX, in the same order.",
        "test-images": "Images that are kept for the benchmark and never learnt from: IDX, as those to learn from.",
        "test-labels": "The digit that each of them shows: IDX, in the same order.",
    },
    evaluation_criterias=(
        {
            "name": "accurate",
            "metric": "accuracy",
            "minimum": 0.97,
            "description": "Of the images never seen in training, at least 97 % are recognised.",
        },
        {
            "name": "fair",
            "metric": "macro_recall",
            "minimum": 0.97,
            "description": "The same on average over the digits, so that a rare one is not given up.",
        },
    ),
    cost_function="cross-entropy",
    evaluation_dataset="The archives test-images and test-labels.",
)

archives = [
    PipelineParameter("train-images", to="import_train.images", label="Training images"),
    PipelineParameter("train-labels", to="import_train.labels", label="Training labels"),
    PipelineParameter("test-images", to="import_test.images", label="Test images"),
    PipelineParameter("test-labels", to="import_test.labels", label="Test labels"),
]
choices = [
    PipelineParameter("epochs", to="train.epochs"),
    PipelineParameter("learning-rate", to="train.learning-rate"),
    PipelineParameter("batch-size", to="train.batch-size"),
    PipelineParameter("seed", to=["train.seed", "split.seed"], description="Seed of the split and of the training."),
    # scikit-learn's digits have size 8. MNIST has 28, which takes three times the work for the same accuracy.
    PipelineParameter("image-size", to=["process_train.size", "process_test.size"], default=16),
]


def recognise_digits(model: str) -> Pipeline:
    """Return the pipeline that trains one kind of model for the task."""
    return Pipeline(
        name=f"digits-{model}",
        description=f"{task.description} By a network of the kind {model}.",
        graph=digits,
        task=task,
        parameters=[*archives, *choices],
        fixed={
            "train.model": model,
            "train.cost-function": task.cost_function,
            "benchmark.evaluation-criterias": list(task.evaluation_criterias),
            "benchmark.constraints": list(task.constraints),
        },
    )


digits_cnn = recognise_digits("cnn")
digits_mlp = recognise_digits("mlp")

defs = Definitions(
    jobs=[digits_cnn.job, digits_mlp.job],
    sensors=[inbox_sensor(digits_cnn)],
    executor=concurrent_executor,
)
