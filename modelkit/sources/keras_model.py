"""`model.keras` and `keras:Name`. Runs in the TensorFlow worker's environment, under KERAS_BACKEND=tensorflow."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from modelkit.fold import fold
from modelkit.network import Activation, Entrance, Head, Network
from modelkit.sources.common import Refusal, Request, offline, read_labels, run

_AS_THEY_ARE = Entrance(std=(1 / 255, 1 / 255, 1 / 255))


def read(request: Request) -> None:
    known: Entrance | None
    if request.source.startswith("keras:"):
        model, known, labels, source = _application(request)
    else:
        model, known, labels, source = _saved(request)
    height, width = _size(model, request)
    classes = _classes(model)
    activation: Activation = request.activation or _activation(model)
    path = request.work / "network.keras"
    _folded(model, height, width).save(path)
    where = {"keras": str(path), **({"trust": "yes"} if request.trust else {})}
    Network(
        torch=where,
        tf=where,
        height=height,
        width=width,
        entrance=None if _takes_pictures(model) else request.entrance(known),
        head=Head("scores", activation=activation),
        facts={
            "task": "classify",
            "labels": labels or request.labels_wanted(classes),
            "meaning": "softmax" if "softmax" in (activation, _last(model)) else "sigmoid",
            "input": request.input(),
            "licence": request.licence,
            "source": source,
        },
    ).write(request.work)


def _application(request: Request) -> tuple[keras.Model, Entrance | None, list[str] | None, str]:
    name = request.source.removeprefix("keras:")
    weights = request.weights or "imagenet"
    size = {} if request.height is None else {"input_shape": (request.height, request.width, 3)}
    known = _entrance(_module_of(name).preprocess_input)
    build = getattr(keras.applications, name)
    if weights == "imagenet":
        try:
            model = build(weights="imagenet", **size)
            labels = request.labels_given(1000) or _imagenet_labels()
        except Exception as error:  # urllib's, ssl's and Keras's own
            raise offline(f"ImageNet's weights of {name}", "--weights FILE and --labels FILE", error) from error
        return model, known, labels, f"keras.applications.{name}, ImageNet weights"
    classes = 1000 if request.labels in (None, "numbers") else len(read_labels(request.labels))
    model = build(weights=None, classes=classes, **size)
    if weights == "none":
        return model, known, None, f"keras.applications.{name}, random weights"
    try:
        model.load_weights(weights)
    except (OSError, ValueError) as error:
        raise Refusal(
            f"{weights} does not hold weights of {name} with {classes} classes: {str(error).splitlines()[0]} "
            "--labels says how many classes there are."
        ) from error
    return model, known, None, f"keras.applications.{name}, {Path(weights).name}"


def _module_of(name: str) -> Any:
    """The module of keras.applications that has the model and its preprocess_input. Raises Refusal."""
    for each in pkgutil.iter_modules(keras.src.applications.__path__):
        module = import_module(f"keras.src.applications.{each.name}")
        built = getattr(module, name, None)
        if inspect.isfunction(built) and hasattr(keras.applications, name) and hasattr(module, "preprocess_input"):
            return module
    known = sorted(each for each in dir(keras.applications) if each[0].isupper())
    raise Refusal(f"keras.applications has no {name!r}. It has {', '.join(known)}.")


def _entrance(preprocess: Any) -> Entrance:
    """What a model's own preprocess_input does to a pixel, read off black, white and pure red."""

    def of(*pixel: float) -> list[float]:
        picture = np.array(pixel, dtype=np.float32).reshape(1, 1, 1, 3)
        return [float(each) for each in np.asarray(preprocess(picture.copy(), data_format="channels_last")).ravel()]

    black, white, red = of(0, 0, 0), of(255, 255, 255), of(255, 0, 0)
    slopes = [w - b for w, b in zip(white, black, strict=True)]  # of a pixel from 0 to 1
    std = tuple(1 / slope for slope in slopes)
    mean = tuple(-b / slope for b, slope in zip(black, slopes, strict=True))
    return Entrance(mean, std, bgr=red[2] != black[2])  # type: ignore[arg-type]


def _imagenet_labels() -> list[str]:
    from keras.src.applications import imagenet_utils

    imagenet_utils.decode_predictions(np.zeros((1, 1000), np.float32), top=1)  # which fetches the list
    index: dict[str, list[str]] = imagenet_utils.CLASS_INDEX
    return [index[str(number)][1] for number in range(1000)]


def _saved(request: Request) -> tuple[keras.Model, Entrance | None, list[str] | None, str]:
    path = Path(request.source)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not request.trust)
    except Exception as error:  # whatever a layer's own deserialisation raises
        reason = str(error).splitlines()[0]
        hint = " It has code inside (a Lambda layer): --trust lets it run." if "ambda" in str(error) else ""
        raise Refusal(f"{path} cannot be loaded as a Keras 3 model: {reason}{hint}") from error
    inside = any(isinstance(each, keras.layers.Rescaling | keras.layers.Normalization) for each in _layers(model))
    return model, _AS_THEY_ARE if inside else None, None, path.name


def _layers(model: keras.Model) -> list[Any]:
    return list(model._flatten_layers(include_self=False, recursive=True))


def _takes_pictures(model: keras.Model) -> bool:
    """Whether its input is uint8: then the normalisation is inside."""
    return bool(model.inputs[0].dtype == "uint8")


def _folded(model: keras.Model, height: int, width: int) -> keras.Model:
    """The folded model if it says the same, else the model as it is: both artifacts are made of it, and their agreement
    would not show a fault of the folding."""
    folded = fold(model)
    picture = np.random.default_rng(0).uniform(0, 255, (2, height, width, 3)).astype(model.inputs[0].dtype)
    wanted, found = (np.asarray(_only(each(picture, training=False))) for each in (model, folded))
    same = np.abs(found - wanted).max() <= 1e-4 * max(np.abs(wanted).max(), 1e-6)
    return folded if same else model


def _only(outputs: Any) -> Any:
    return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs


def _size(model: keras.Model, request: Request) -> tuple[int, int]:
    shape = model.input_shape
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3):
        raise Refusal(
            f"The model's input is {shape}; one picture of [batch, height, width, 3], channels last, is needed."
        )
    height, width = shape[1:3]
    if height is None or width is None:
        return request.size_wanted()
    if request.height not in (None, height) or request.width not in (None, width):
        raise Refusal(f"The model's input is {height}x{width}, not {request.height}x{request.width}: leave --size out.")
    return height, width


def _classes(model: keras.Model) -> int:
    shape = _only(model.output_shape)
    if not (isinstance(shape, tuple) and len(shape) == 2 and shape[1] is not None):
        raise Refusal(
            f"The model returns {shape}; a classifier's [batch, classes] is needed. Convert a detector by hand to"
            " a pair:"
            " --torch and --tf."
        )
    return int(shape[1])


def _last(model: keras.Model) -> str:
    activation = getattr(model.layers[-1], "activation", None)
    return str(getattr(activation, "__name__", "linear"))


def _activation(model: keras.Model) -> Activation:
    last = _last(model)
    if last in ("softmax", "sigmoid"):
        return "none"
    raise Refusal(
        f"The model's last layer is {type(model.layers[-1]).__name__} with activation {last}: say what makes"
        " class scores of"
        " its outputs with --activation softmax, sigmoid or none."
    )


if __name__ == "__main__":
    run(read)
