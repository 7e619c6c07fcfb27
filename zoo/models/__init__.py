"""The architectures, one file a family. Importing this package registers them with timm and the zoo."""

from . import sresnet as sresnet
