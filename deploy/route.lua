-- Sends each MR series to leakloc once no instance was added to it for `StableAge` seconds.
-- Results of leakloc have other modalities and are therefore not sent back to it.
function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'MR' then
    -- SendToModality() would block the callback during the transfer; a job does not.
    RestApiPost('/modalities/leakloc/store',
      DumpJson({ Resources = { seriesId }, Synchronous = false }, true))
  end
end
