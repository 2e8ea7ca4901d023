from monai.transforms import MapTransform, Randomizable


class AddNoised(Randomizable, MapTransform):
    def __init__(self, keys, std):
        super().__init__(keys)
        self.std = std

    def __call__(self, data):
        found = dict(data)
        for key in self.keys:
            noise = self.R.normal(0, self.std, size=found[key].shape)
            found[key] = found[key] + noise.astype(found[key].dtype)
        return found
