-- Sends each MR series to leakloc once nothing was added to it for `StableAge` seconds.
-- What leakloc returns is of other modalities, so nothing goes round in circles.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'MR' then
    -- SendToModality() waits for the whole transfer within the callback; a job does not.
    RestApiPost('/modalities/leakloc/store',
      DumpJson({ Resources = { seriesId }, Synchronous = false }, true))
  end
end
